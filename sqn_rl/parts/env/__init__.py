"""Environments: N at once, with answers that are checked and episodes that can be restored."""
