"""The agent: the built parts, wired, and one update of them."""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.optim import Optimizer

from sqn_rl.data import Batch
from sqn_rl.errors import NumericsError


class Agent:
    """The learner's parts. None of them knows the agent; it knows what they answer.

    Args:
        actor: chooses actions: ``act(observation, greedy=, generator=)``.
        loss: ``compute(batch)`` gives ``loss_q`` and ``loss_alpha``; holds ``q_net``, ``target_q_net`` and
            ``temperature``.
        target_update: ``step()`` moves the target networks.
        optimizer: makes the optimizer from parameter groups.
        replay: ``extend(observation, action, step)`` and ``sample(batch_size)``.
    """

    def __init__(
        self,
        *,
        actor: nn.Module,
        loss: nn.Module,
        target_update: object,
        optimizer: Callable[..., Optimizer],
        replay: object,
    ) -> None:
        self.actor, self.loss, self.target_update, self.replay = actor, loss, target_update, replay
        self.temperature = loss.temperature
        groups = [{"params": list(loss.q_net.parameters())}]
        if learned := list(self.temperature.parameters()):
            groups.append({"params": learned, "lr": self.temperature.lr, "weight_decay": 0.0})
        self.optimizer = optimizer(groups)
        self._annealed = [part for part in (self.temperature, actor, replay) if hasattr(part, "anneal")]

    def anneal(self, env_steps: int) -> None:
        """Move every schedule to this many environment steps."""
        for part in self._annealed:
            part.anneal(env_steps)

    def update(self, batch: Batch) -> object:
        """One update from one batch (lines 10 to 18); returns the loss's terms.

        Raises:
            NumericsError: a loss is NaN or infinite. The networks are as they were before.
        """
        terms = self.loss.compute(batch)
        total = terms.loss_q + terms.loss_alpha
        if not math.isfinite(total.item()):
            raise NumericsError(
                f"loss: loss_q = {terms.loss_q.item()}, loss_alpha = {terms.loss_alpha.item()}"
            )
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        self.temperature.refresh()
        self.target_update.step()
        return terms
