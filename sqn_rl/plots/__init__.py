"""Plots: curves, films, the wiring, and progress on a terminal."""
