"""Plots: curves, videos, the wiring, and progress on a terminal."""
