"""Where transitions are collected: in the training loop, or by actors with environments of their own."""
