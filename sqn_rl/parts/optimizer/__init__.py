"""Optimizers: they update the parameters."""
