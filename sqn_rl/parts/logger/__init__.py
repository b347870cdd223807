"""Loggers: they write a run's metrics, in addition to the run's own files."""
