"""Losses, and the temperature that they learn."""
