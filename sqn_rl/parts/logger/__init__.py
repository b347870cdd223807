"""Loggers: where the numbers of a run are written besides its own files."""
