"""What recipes need on environments without images."""

FLAT = {"sqn_impala": ("encoder=mlp",)}
"""By recipe with an encoder of images of its own, the overrides."""
