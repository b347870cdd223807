"""Returns: what a stored transition and those after it are worth."""
