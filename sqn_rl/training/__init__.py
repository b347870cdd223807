"""Training: Algorithm 1, and what it needs to update, evaluate, stop and resume."""
