"""The agent: the built parts, wired, and one update of them."""

import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from sqn_rl.contracts import Actor, Loss, Replay, TargetUpdate
from sqn_rl.data import Batch, Terms
from sqn_rl.errors import NumericsError
from sqn_rl.gradients import Gradients

AGENT_PARTS = ("actor", "loss", "target_update", "optimizer", "replay")
"""The slots whose parts it takes; the others are inside these."""


class Agent:
    """The learner's parts. None of them knows the agent; it knows what they answer.

    Args:
        actor: chooses actions.
        loss: holds the networks, their target copies and the temperature.
        target_update: moves the target networks.
        optimizer: makes the optimizer from parameter groups.
        replay: stores and draws transitions.
        compiled: compile the update: see :class:`~sqn_rl.gradients.Gradients`.
    """

    def __init__(
        self,
        *,
        actor: Actor,
        loss: Loss,
        target_update: TargetUpdate,
        optimizer: Callable[..., Optimizer],
        replay: Replay,
        compiled: bool = False,
    ) -> None:
        self.actor, self.loss, self.target_update, self.replay = actor, loss, target_update, replay
        self.temperature = loss.temperature
        alphas = [] if self.temperature is None else list(self.temperature.parameters())
        others = {id(alpha) for alpha in alphas}
        learned = [each for each in loss.parameters() if each.requires_grad and id(each) not in others]
        self.optimizer = optimizer([{"params": learned}])
        self._add_temperature(alphas)
        self._learned = learned + alphas
        self._gradients = Gradients(loss, self._learned, compiled=compiled)
        self._parts: list[Any] = [self.temperature, actor, replay]
        self._annealed = [part for part in self._parts if hasattr(part, "anneal")]

    def _add_temperature(self, alphas: list[nn.Parameter]) -> None:
        """Optimise α too: with the networks where it may be, as its own group costs a tenth of a step."""
        if not alphas or self.temperature is None:
            return
        (networks,), lr = self.optimizer.param_groups, self.temperature.lr
        if networks["lr"] == lr and not networks.get("weight_decay"):
            networks["params"].extend(alphas)
        else:
            self.optimizer.add_param_group({"params": alphas, "lr": lr, "weight_decay": 0.0})

    def anneal(self, env_steps: int) -> None:
        """Move every schedule to this many environment steps."""
        for part in self._annealed:
            part.anneal(env_steps)

    def update(self, batch: Batch) -> Terms:
        """One update from one batch (lines 10 to 18); returns the loss's terms.

        Raises:
            NumericsError: a loss or gradient is NaN or infinite. The networks are as they were before.
        """
        terms, gradients, norm = self._gradients(batch)
        values = {name: loss.item() for name, loss in terms.losses.items()} | {"gradient norm": norm.item()}
        if not math.isfinite(sum(values.values())):
            raise NumericsError("loss: " + ", ".join(f"{name} = {value}" for name, value in values.items()))
        for parameter, gradient in zip(self._learned, gradients, strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        if self.temperature is not None:
            self.temperature.refresh()
        self.target_update.step()
        self.replay.update_priority(batch.place, terms.td_error)
        return terms

    def metrics(self) -> dict[str, float]:
        """What its parts say of themselves, by name."""
        told = (part.metrics() for part in self._parts if hasattr(part, "metrics"))
        return {name: value for metrics in told for name, value in metrics.items()}
