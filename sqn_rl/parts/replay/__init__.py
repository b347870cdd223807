"""Replays: what was played is stored, and batches are drawn from it."""
