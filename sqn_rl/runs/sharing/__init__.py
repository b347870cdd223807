"""A policy outside of this package: in an exported file, or as a model on a hub."""
