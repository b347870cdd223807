"""Optimizers: what moves the parameters."""
