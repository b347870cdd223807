"""Layers: the building blocks of encoders and heads."""
