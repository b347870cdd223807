"""The Trackio logger."""

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqn_rl.parts.arguments import typed
from sqn_rl.parts.logger.tracking import TrackingLogger, missing


class TrackioLogger(TrackingLogger):
    """Sends metrics, evaluations, the config and the curve to Trackio.

    Steps are environment steps. Runs are in Trackio's own folder (``TRACKIO_DIR``), which `trackio show`
    displays. A resumed run continues the same run, which Trackio finds by its name.

    Args:
        project: the project.
        directory: the run directory.
        recipe: the resolved config.
        title: the run's title.

    Raises:
        SettingError: trackio is not installed.
    """

    synchronous = False

    @typed
    def __init__(self, *, project: str, directory: Path, recipe: Mapping[str, Any], title: str) -> None:
        try:
            import trackio
        except ImportError:
            missing("trackio")
        self._trackio, self._project = trackio, project
        super().__init__("trackio", directory, recipe, title)

    def open(self, id: str | None, recipe: Mapping[str, Any], name: str) -> str:
        """Begin or continue a run, whose name ends with the id."""
        id = id or token_hex(4)
        with redirect_stdout(StringIO()):  # it prints advertisements of its dashboard
            self._run = self._trackio.init(
                project=self._project,
                name=f"{name} {id}",
                config=dict(recipe),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        return id

    def send(self, values: Mapping[str, float], env_steps: int) -> None:
        """Send a row."""
        self._run.log(dict(values), step=env_steps)

    def send_figure(self, path: Path) -> None:
        """Send the curve, as ``curve``."""
        self._run.log({"curve": self._trackio.Image(str(path))})

    def end(self, status: str) -> None:
        """Send how the run ended."""
        self._run.log({"status": status})

    def wait(self) -> None:
        """Wait until everything is written."""
        with redirect_stdout(StringIO()):
            self._trackio.finish()
