"""The default logger: only the run's own files."""

from sqn_rl.parts.logger.base import Reporter


class FilesLogger(Reporter):
    """Writes nothing more than the run's own files, which are always written."""
