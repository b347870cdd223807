"""Heads: from features to what is predicted of each action."""
