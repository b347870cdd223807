"""Replay: the ring that stores what happened, the returns made of it, and the samplers over it."""
