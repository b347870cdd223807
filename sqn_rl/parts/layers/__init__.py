"""Layers: what encoders and heads are built of."""
