"""Losses: scalars to minimise, computed from a batch of transitions."""
