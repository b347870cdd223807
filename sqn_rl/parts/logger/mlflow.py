"""The MLflow logger."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqn_rl.errors import SettingError, first_line
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.logger.tracking import TrackingLogger, flat, missing

STATUSES = {"done": "FINISHED", "stopped": "SCHEDULED"}
LONGEST_PARAMETER = 6000
"""Characters of a parameter's value."""


class MlflowLogger(TrackingLogger):
    """Sends metrics, evaluations, the config and the curve to MLflow.

    Steps are environment steps. Without ``MLFLOW_TRACKING_URI``, runs are in the folder ``<run>/mlruns``. A
    resumed run continues the same run. MLflow's own telemetry is switched off.

    Args:
        experiment: the experiment; it is created if it does not exist.
        directory: the run directory.
        recipe: the resolved config.
        title: the run's title.

    Raises:
        SettingError: MLflow is not installed; in ``begin``: the server does not answer.
    """

    @typed
    def __init__(self, *, experiment: str, directory: Path, recipe: Mapping[str, Any], title: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it is read when MLflow is imported
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        try:
            from mlflow import MlflowClient, MlflowException
        except ImportError:
            missing("mlflow")
        self._experiment, self._status, self._error = experiment, "FAILED", MlflowException
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (directory / "mlruns").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        super().__init__("mlflow", directory, recipe, title)

    def open(self, id: str | None, recipe: Mapping[str, Any], name: str) -> str:
        """Begin or continue a run."""
        try:
            self._id = self._resumed(id) if id is not None else self._created(recipe, name)
            self._client.set_tag(self._id, "steps", recipe["steps"])  # a parameter cannot be changed
        except self._error as error:
            expected = f"a tracking server that can be used ({first_line(error)})"
            raise SettingError("logger", "mlflow", expected) from error
        return self._id

    def _resumed(self, id: str) -> str:
        self._client.update_run(id, status="RUNNING")
        return id

    def _created(self, recipe: Mapping[str, Any], name: str) -> str:
        client = self._client
        found = client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else client.create_experiment(self._experiment)
        id = str(client.create_run(experiment, run_name=name).info.run_id)
        for key, value in flat(recipe):
            client.log_param(id, key, str(value)[:LONGEST_PARAMETER])
        return id

    def send(self, values: Mapping[str, float], env_steps: int) -> None:
        """Send a row."""
        for name, value in values.items():
            self._client.log_metric(self._id, name, value, step=env_steps)

    def send_figure(self, path: Path) -> None:
        """Send the curve, as an artifact."""
        self._client.log_artifact(self._id, str(path))

    def end(self, status: str) -> None:
        """Remember how the run ended."""
        self._status = STATUSES.get(status, "FAILED")

    def wait(self) -> None:
        """Say how the run ended."""
        self._client.set_terminated(self._id, self._status)
