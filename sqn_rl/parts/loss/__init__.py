"""Losses: from a batch of transitions to what is descended on."""
