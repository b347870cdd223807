"""Where transitions are collected: in the training loop itself, or by actors with an environment each."""
