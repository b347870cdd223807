"""What the Atari environments share: the rules of ale-py, and processes that play from RAM."""
