"""Runs: what training leaves on the disk, and how it is resumed."""
