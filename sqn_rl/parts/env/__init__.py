"""Environments: batches of N, with checked results and restorable episodes."""
