"""The agent: the built parts, wired, and one update of them."""

import math
from collections.abc import Callable

from torch.optim import Optimizer

from sqn_rl.contracts import Actor, Loss, Replay, TargetUpdate, Temperature, Terms
from sqn_rl.data import Batch
from sqn_rl.errors import NumericsError

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
    """

    def __init__(
        self,
        *,
        actor: Actor,
        loss: Loss,
        target_update: TargetUpdate,
        optimizer: Callable[..., Optimizer],
        replay: Replay,
    ) -> None:
        self.actor, self.loss, self.target_update, self.replay = actor, loss, target_update, replay
        self.temperature = loss.temperature
        self.optimizer = optimizer([{"params": list(loss.q_net.parameters())}])
        self._add_temperature(self.temperature)
        self._learned = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self._annealed = [part for part in (self.temperature, actor, replay) if hasattr(part, "anneal")]

    def _add_temperature(self, temperature: Temperature) -> None:
        """Optimise α too: with the networks where it may be, as its own group costs a tenth of a step."""
        learned, (networks,) = list(temperature.parameters()), self.optimizer.param_groups
        if learned and networks["lr"] == temperature.lr and not networks.get("weight_decay"):
            networks["params"].extend(learned)
        elif learned:
            group = {"params": learned, "lr": temperature.lr, "weight_decay": 0.0}
            self.optimizer.add_param_group(group)

    def anneal(self, env_steps: int) -> None:
        """Move every schedule to this many environment steps."""
        for part in self._annealed:
            part.anneal(env_steps)

    def update(self, batch: Batch) -> Terms:
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
        for parameter in self._learned:
            parameter.grad = None  # what zero_grad does, at a tenth of its cost
        total.backward()
        self.optimizer.step()
        self.temperature.refresh()
        self.target_update.step()
        return terms
