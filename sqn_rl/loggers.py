"""Loggers: where the numbers of a run go besides its files."""

from pathlib import Path
from typing import Any

from sqn_rl.errors import SettingError
from sqn_rl.reporting import Reporter


class FilesLogger(Reporter):
    """Nothing besides the run's files, which are always written.

    Args:
        directory: the run directory.
    """

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory


class TensorBoardLogger(Reporter):
    """Scalars for TensorBoard under ``<run>/tensorboard``, by environment steps.

    Args:
        directory: the run directory.

    Raises:
        SettingError: tensorboard is not installed.
    """

    def __init__(self, *, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SettingError(
                "logger", "tensorboard", "the extra `logging`: pip install 'sqn_rl[logging]'"
            ) from error
        self._writer = SummaryWriter(str(directory / "tensorboard"))

    def metrics(self, row: dict[str, Any]) -> None:
        """Every number but the counters, under ``train/``."""
        self._write("train", row)

    def evaluation(self, row: dict[str, Any]) -> None:
        """Mean, standard deviation and IQM, under ``evaluation/``."""
        self._write("evaluation", row)

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _write(self, group: str, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "env_steps":
                self._writer.add_scalar(f"{group}/{name}", value, row["env_steps"])
        self._writer.flush()
