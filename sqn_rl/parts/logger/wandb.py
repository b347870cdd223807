"""The Weights & Biases logger."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqn_rl.errors import SettingError, first_line, require
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.logger.tracking import TrackingLogger, missing

MODES = ("online", "offline", None)


class WandbLogger(TrackingLogger):
    """Sends metrics, evaluations, the config and the curve to Weights & Biases.

    Steps are environment steps. Its files are in ``<run>/wandb``. A resumed run continues the same run:
    offline it is a further folder there with the same id, which `wandb sync` joins. Neither console, code
    nor system metrics are sent.

    Args:
        project: the project.
        mode: ``online``, ``offline``, or None: as ``WANDB_MODE`` says, or else online.
        directory: the run directory.
        recipe: the resolved config.
        title: the run's title.

    Raises:
        SettingError: wandb is not installed; in ``begin``: it refuses, as without a login.
    """

    synchronous = False

    @typed
    def __init__(
        self, *, project: str, mode: str | None, directory: Path, recipe: Mapping[str, Any], title: str
    ) -> None:
        try:
            import wandb
        except ImportError:
            missing("wandb")
        require(mode in MODES, "mode", mode, "online, offline or null")
        self._wandb, self._project, self._mode = wandb, project, mode
        super().__init__("wandb", directory, recipe, title)

    def open(self, id: str | None, recipe: Mapping[str, Any], name: str) -> str:
        """Begin or continue a run."""
        wandb = self._wandb
        quiet = wandb.Settings(
            console="off", silent=True, disable_code=True, disable_git=True, x_disable_stats=True
        )
        try:
            self._run = wandb.init(
                project=self._project,
                name=name,
                id=id,
                resume="allow",
                dir=str(self._directory),
                config=dict(recipe),
                mode=self._mode,
                settings=quiet,
            )
        except wandb.Error as error:
            expected = f"a login: `wandb login`, or logger.mode=offline ({first_line(error)})"
            raise SettingError("logger", "wandb", expected) from error
        return str(self._run.id)

    def send(self, values: Mapping[str, float], env_steps: int) -> None:
        """Send a row."""
        self._run.log(dict(values), step=env_steps)

    def send_figure(self, path: Path) -> None:
        """Send the curve, as ``curve``."""
        self._run.log({"curve": self._wandb.Image(str(path))})

    def end(self, status: str) -> None:
        """End the run; one that was stopped can be continued."""
        self._run.summary["status"] = status

    def wait(self) -> None:
        """Wait until everything is sent, or written."""
        self._run.finish(exit_code=0)
