"""Recipes: from YAML and overrides to built parts, with the origin of every value."""
