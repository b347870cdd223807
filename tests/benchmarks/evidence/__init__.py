"""The evidence: see ``__main__``."""
