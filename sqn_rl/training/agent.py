"""The learner: its parts, and one update of them."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sqn_rl.errors import CheckpointError, NumericsError, WiringError, explain
from sqn_rl.parts.arguments import typed
from sqn_rl.parts.memory import state_size
from sqn_rl.protocols import (
    Actor,
    Advising,
    Annealed,
    CompilableActor,
    Independent,
    Loss,
    MaskLoss,
    Measured,
    Replay,
    Stateful,
    TargetUpdate,
)
from sqn_rl.training.agreement import require_agreement, require_memory, require_shared
from sqn_rl.training.numerics import learned_not_finite, not_finite
from sqn_rl.training.randomness import Randomness
from sqn_rl.training.update.compiling import Compiled
from sqn_rl.training.update.descent import Descent
from sqn_rl.training.update.gradients import Gradients
from sqn_rl.training.weights import load_besides_weights, load_weights, state_besides_weights, state_of
from sqn_rl.types import Batch, Terms

AGENT_PARTS = ("actor", "loss", "target_update", "optimizer", "replay")
"""The slots whose parts an agent takes; other parts are inside these."""


MAX_BATCHES_AT_ONCE = 8
"""The most batches that are drawn in one call."""


class Agent:
    """The learner: its parts, and one update of them. No part knows the agent.

    Args:
        actor: chooses actions.
        loss: holds the networks, their target copies and the temperature.
        target_update: moves the target networks.
        optimizer: makes the optimizer from parameter groups.
        replay: stores and draws transitions.
        compiled: compile the update, and acting if the actor can: see
            :class:`~sqn_rl.training.update.compiling.Compiled`. On CUDA the update is recorded instead, and
            acting stays as it is. With recurrent networks nothing is compiled, as the number of transitions
            in a batch depends on its sequences.

    Raises:
        WiringError: the parts disagree about γ, the temperature, which entropies count, or memory; or a part
            draws from a generator that no checkpoint stores.
    """

    @typed
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
        require_shared(actor, loss, target_update)
        require_agreement(loss, replay)
        require_memory(actor, loss, replay)
        compiled = compiled and not state_size(loss.q_net)
        self._randomness = {
            "loss": Randomness("loss", loss, stateful=False),
            "actor": Randomness("actor", actor, stateful=True),
            "target_update": Randomness("target_update", target_update, stateful=True),
        }
        self.actor, self.loss, self.target_update, self.replay = actor, loss, target_update, replay
        self.temperature = loss.temperature
        alphas = [] if self.temperature is None else list(self.temperature.parameters())
        of_temperature = {id(alpha) for alpha in alphas}
        learned = [
            each for each in loss.parameters() if each.requires_grad and id(each) not in of_temperature
        ]
        self.optimizer = optimizer([{"params": learned}])
        self._add_temperature(alphas)
        self._learned = learned + alphas
        generators = self._randomness["loss"].generators
        self._gradients = Gradients(loss, self._learned, compiled=compiled, generators=generators)
        self._descend = Descent(
            self._learned, self.optimizer, self.temperature, target_update, compiled=compiled
        )
        self._choose: Compiled[tuple[Tensor, Tensor]] | None = None
        if compiled and isinstance(actor, CompilableActor) and not self._learned[0].is_cuda:
            self._choose = Compiled(actor.choose, "acting")
            actor.use_compiled(self._choose)
        parts: list[object] = [self.temperature, actor, replay]
        self._annealed = [part for part in parts if isinstance(part, Annealed)]
        self._measured = [part for part in parts if isinstance(part, Measured)]
        self._advising = [part for part in parts if isinstance(part, Advising)]
        can_draw_ahead = isinstance(replay, Independent) and replay.independent
        self._batches_at_once = MAX_BATCHES_AT_ONCE if can_draw_ahead else 1

    def _add_temperature(self, alphas: list[nn.Parameter]) -> None:
        """Optimise α too, if possible in the networks' group: a group of its own costs a tenth of a step."""
        if not alphas or self.temperature is None:
            return
        (networks,), lr = self.optimizer.param_groups, self.temperature.lr
        if networks["lr"] == lr and not networks.get("weight_decay"):
            networks["params"].extend(alphas)
        else:
            self.optimizer.add_param_group({"params": alphas, "lr": lr, "weight_decay": 0.0})

    def require_reads_masks(self) -> None:
        """Refuse a loss that ignores action masks, and so would learn from actions that are not allowed.

        Raises:
            WiringError: the loss does not declare ``reads_masks``.
        """
        if not (isinstance(self.loss, MaskLoss) and self.loss.reads_masks):
            problem = f"the environment gives action masks, which {type(self.loss).__name__} does not read"
            hint = "those of sqn_rl read them by a third argument, action_mask, of backup and log_policy"
            raise WiringError("loss", f"loss: {problem}; {hint}", "env")

    def anneal(self, env_steps: int) -> None:
        """Move every schedule to this many environment steps."""
        for part in self._annealed:
            part.anneal(env_steps)

    def draw(self, batch_size: int, times: int) -> Iterator[Batch]:
        """Draw the batches of ``times`` updates (line 9), lazily.

        If sampling does not depend on updates, several batches are drawn in one call, which is faster.
        """
        for first in range(0, times, self._batches_at_once):
            number = min(self._batches_at_once, times - first)
            batch = self.replay.draw(number * batch_size)
            yield from [batch] if number == 1 else batch.split(batch_size)

    def update(self, batch: Batch) -> Terms:
        """One update from one batch (lines 10 to 18); returns the loss's terms.

        Raises:
            NumericsError: a loss, gradient or priority is NaN or infinite. The networks are unchanged; the
                error has the ``batch``.
        """
        terms, gradients, numbers = self._gradients(batch)
        try:
            self._require_finite(terms, numbers.tolist(), batch)
            self.replay.update_priority(batch.place, terms.td_error)
        except NumericsError as error:
            error.batch = batch
            raise
        self._descend(gradients)
        return terms

    def _require_finite(self, terms: Terms, numbers: list[float], batch: Batch) -> None:
        if not math.isfinite(sum(numbers)):
            values = zip((*terms.losses, "gradient norm"), numbers, strict=True)
            losses = ", ".join(f"{name} = {value}" for name, value in values)
            raise NumericsError("\n  ".join([f"loss: {losses}", *self._cause(batch)]))

    def _cause(self, batch: Batch) -> list[str]:
        """The first quantity of an update that is not finite, for the message of an error."""
        try:
            return not_finite(self.loss, batch)[:1]
        except Exception as error:  # of a loss of the user, which must not hide that message
            return [f"where it began is unknown, as the search failed: {explain(error)}"]

    def require_sound(self) -> None:
        """Refuse weights, or moments of the optimizer, that are NaN or infinite, and an α not above 0.

        Raises:
            NumericsError: there are such weights or moments, or α is such a number.
        """
        if found := learned_not_finite(self.loss, self.optimizer):
            after = "after an optimizer step: lower optimizer.lr, or its weight decay"
            raise NumericsError(f"{found[0]}\n  {after}; the checkpoints before are kept")
        if self.temperature is not None and not (alpha := self.temperature.alpha.item()) > 0:
            problem = f"{type(self.temperature).__name__} gives alpha = {alpha:g}; expected a number above 0"
            raise NumericsError(f"temperature: {problem}\n  the checkpoints before are kept")

    def compiles(self, *, acts: bool, learns: bool) -> bool:
        """Whether the next action, or the next update, compiles first, which takes long."""
        learning = self._gradients.compiles or self._descend.compiles
        acting = self._choose is not None and self._choose.pending
        return (acts and acting) or (learns and learning)

    @property
    def runs_compiled(self) -> bool:
        """Whether the updates until now ran compiled code."""
        return self._gradients.compiled

    def metrics(self) -> dict[str, float | None]:
        """The metrics of its parts, by name.

        Raises:
            WiringError: a part gives something other than numbers by name.
        """
        found: dict[str, float | None] = {}
        for part in self._measured:
            given = part.metrics()
            if not isinstance(given, Mapping):
                raise self._no_metrics(part, f"a {type(given).__name__}")
            for name, value in given.items():
                found[name] = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
                if not isinstance(found[name], int | float | None):
                    raise self._no_metrics(part, f"{name}, a {type(value).__name__}")
        return found

    def _no_metrics(self, part: object, given: str) -> WiringError:
        slot = next((slot for slot in AGENT_PARTS if getattr(self, slot) is part), "temperature")
        problem = f"{type(part).__name__}.metrics() gives {given}; expected numbers by name"
        return WiringError(slot, f"{slot}: {problem}")

    def advice(self) -> list[str]:
        """The advice of its parts on settings that should be changed."""
        return [text for part in self._advising if (text := part.advice())]

    # --- state ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next update depends on; tensors are not copied, a ring's rows not yet read."""
        moments = self.optimizer.state_dict()["state"]
        return {
            "weights": self.loss.state_dict(),
            "optimizer": {str(index): state for index, state in moments.items()},
            "replay": state_of(self.replay),
            "actor": state_besides_weights(self.loss, self.actor),
            "target_update": state_besides_weights(self.loss, self.target_update),
            "hidden": {slot: each.state_dict() for slot, each in self._randomness.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state made by :meth:`state_dict`.

        Raises:
            CheckpointError: the state is that of another agent.
        """
        load_weights(self.loss, state["weights"])
        groups = self.optimizer.state_dict()["param_groups"]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments = {
            int(index): {name: _laid_out_as(parameters[int(index)], value) for name, value in each.items()}
            for index, each in state["optimizer"].items()
        }
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if not isinstance(self.replay, Stateful):
            lacks = f"{type(self.replay).__name__} has no state_dict and load_state_dict"
            raise CheckpointError(f"replay: {lacks}: what it stored is in no checkpoint")
        if state["replay"]:
            self.replay.load_state_dict(state["replay"])
        load_besides_weights(self.actor, state["actor"])
        load_besides_weights(self.target_update, state["target_update"])
        for slot, each in self._randomness.items():
            each.load_state_dict(state["hidden"].get(slot, {}))  # before 0.2 none of a target updater


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """A moment in the memory layout of its parameter, such as channels last: fused optimizers rely on it."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
