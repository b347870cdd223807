"""Replays: transitions are stored, and batches are sampled from them."""
