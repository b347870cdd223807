"""Heads: from features to predictions for each action."""
