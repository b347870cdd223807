"""Returns: one-step, n-step, tree backup and Retrace."""
