"""Returns: one-step and n-step returns of stored transitions."""
