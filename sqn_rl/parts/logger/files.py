"""The default logger: only the run's own files."""

from pathlib import Path

from sqn_rl.parts.logger.base import Reporter


class FilesLogger(Reporter):
    """Writes nothing more than the run's own files, which are always written.

    Args:
        directory: the run directory.
    """

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory
