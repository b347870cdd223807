"""A worker: it collects chunks with a copy of the network that acts, wherever an engine runs it.

Legend: K rows of a chunk, E environments of the worker, n networks; ``*S`` is the shape of an observation.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sqn_rl.errors import RestoreError
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.opening import close
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.protocols import Actor, Annealed, Laddered, Loss
from sqn_rl.training.player import Player, n_actions_if_recorded, random_actions
from sqn_rl.training.random_state import GLOBAL_SEED_OFFSET, RESUMED_SEED_OFFSET, RandomState
from sqn_rl.training.randomness import Randomness
from sqn_rl.training.torch_modes import default_float32, flushed_denormals
from sqn_rl.training.weights import load_besides_weights, state_besides_weights
from sqn_rl.types import Chunk, Request, Step

OBSERVATIONS = ("observation", "next_observation")
"""The columns of a step that a chunk stores as frames."""


class Ladder(NamedTuple):
    """How much each of a worker's environments explores: see :class:`~sqn_rl.protocols.Laddered`."""

    position: Tensor
    base: float


class Worker:
    """Collects chunks deterministically.

    A chunk, and the state after it, depend only on the state before it, the weights and the request.

    Args:
        env: E environments.
        actor: acts in the environments.
        loss: holds the actor's networks, and computes initial priorities.
        returns: computes the returns from which priorities are computed.
        rows: K, the number of steps of each environment in a chunk.
        ladder: how much each environment explores; None: as the actor does.
        seed: seed of everything that is random here.
    """

    def __init__(
        self,
        *,
        env: BatchedEnv,
        actor: Actor,
        loss: Loss,
        returns: Any,
        rows: int,
        ladder: Ladder | None,
        seed: int,
    ) -> None:
        self.env, self._actor, self._loss, self._returns, self._rows = env, actor, loss, returns, rows
        self._ladder, self._seed = ladder, seed
        self._player = Player(actor, env.num_envs, n_actions_if_recorded(env, returns))
        if isinstance(loss, nn.Module):
            loss.eval()  # it gives priorities, and learns nothing
        self._generator = torch.Generator().manual_seed(seed)
        self._random_state = RandomState(GLOBAL_SEED_OFFSET + seed, "cpu")
        self._randomness = {
            "actor": Randomness("actor", actor, stateful=True),
            "loss": Randomness("loss", loss, stateful=False),
        }
        self._observation: Tensor | None = None
        self._note, self._chunks = "", 0
        self._version: int | None = None

    @default_float32()
    @flushed_denormals()
    def collect(self, weights: np.ndarray, request: Request) -> tuple[Chunk, dict[str, Any]]:
        """Collect a chunk with weights from :func:`packed_weights`.

        Returns:
            The chunk, and the state after it.

        Raises:
            EnvError: an environment raised, died, or gave an invalid answer.
            NumericsError: an observation or a reward is NaN or infinite.
        """
        with self._random_state, torch.no_grad():
            if request.version != self._version:
                unpack_weights(self._loss, weights)
                self._version = request.version
            if isinstance(self._actor, Annealed):
                self._actor.anneal(request.env_steps)
            if self._ladder and isinstance(self._actor, Laddered):
                self._actor.explore(*self._ladder)
            if begins := self._observation is None:
                self._player.begin()
            observation = self.env.begin() if self._observation is None else self._observation
            chunk = self._collect(observation, begins, request)
            self._chunks += 1
            return chunk, deepcopy(self._state())

    def _collect(self, observation: Tensor, begins: bool, request: Request) -> Chunk:
        observations, actions, steps = [observation], list[Tensor](), list[Step]()
        for _ in range(self._rows):
            action = self._act(observations[-1], request.random)
            self.env.send(action)
            step = self._player.record(action, self.env.receive())
            observations.append(step.observation)
            actions.append(action)
            steps.append(step)
        self._observation = observations[-1]
        finals = [step.next_observation[step.ended] for step in steps if step.ended.any()]
        final = torch.cat(finals) if finals else observation[:0]
        names = [name for name, column in steps[0]._asdict().items() if column is not None]
        columns = {
            name: torch.stack([getattr(step, name) for step in steps]).numpy()
            for name in names
            if name not in OBSERVATIONS
        }
        note, self._note = self._note, ""
        return Chunk(
            serial=request.serial,
            version=request.version,
            begins=begins,
            observation=torch.stack([self._newest(each) for each in observations]).numpy(),
            action=torch.stack(actions).numpy(),
            columns=columns,
            final=self._newest(final).numpy(),
            priority=self._priorities(observations, actions, steps) if request.priorities else None,
            note=note,
        )

    def _act(self, observation: Tensor, random: bool) -> Tensor:
        if self._player.is_recurrent or not random:
            action = self._player.act(observation, **self.env.act_options).cpu()
            if not random:  # in the warm-up the call only updates the memory
                return action
        return random_actions(self.env, self._generator)

    def _newest(self, observation: Tensor) -> Tensor:
        """The newest frame of each observation, ``[E, *S]`` → ``[E, *F]``."""
        return observation[:, -1] if self.env.frame_stack > 1 else observation

    def _priorities(self, observations: list[Tensor], actions: list[Tensor], steps: list[Step]) -> np.ndarray:
        """TD errors of the transitions, ``[n, K, E]``, with the acting network as its own target.

        Returns end at the chunk's last step, as those of the newest transitions of a replay do.
        """
        ring = Ring(
            capacity=self._rows * self.env.num_envs,
            num_envs=self.env.num_envs,
            observation_shape=self.env.observation_shape,
            observation_dtype=self.env.observation_dtype,
            frame_stack=1,
            device="cpu",
        )
        for observation, action, step in zip(observations, actions, steps, strict=False):
            ring.append(observation, action, step)
        batch = self._returns.gather(ring, torch.arange(len(ring)))
        td_error = self._loss.compute(batch).td_error
        return td_error.view(-1, self._rows, self.env.num_envs).numpy()

    def _state(self) -> dict[str, Any]:
        player = {"player": self._player.state_dict()} if self._player.is_recurrent else {}
        return {
            **player,
            "env": self.env.state_dict() if self.env.restorable else None,
            "actor": state_besides_weights(self._loss, self._actor),
            "hidden": {slot: each.state_dict() for slot, each in self._randomness.items()},
            "warm_up": self._generator.get_state(),
            "torch": self._random_state.state_dict(),
            "chunks": self._chunks,
        }

    @default_float32()
    @flushed_denormals()
    def restore(self, state: Mapping[str, Any] | None) -> None:
        """Continue from a state; None: from the beginning.

        Environments that cannot be restored begin new episodes; the next chunk has a note about it.
        """
        if state is None:
            return
        with self._random_state:
            load_besides_weights(self._actor, state["actor"])
            for slot, each in self._randomness.items():
                each.load_state_dict(state["hidden"][slot])
            self._player.load_state_dict(state.get("player", {}))
            self._generator.set_state(state["warm_up"])
            self._chunks = state["chunks"]
            try:
                self._observation = self.env.load_state_dict(state["env"]) if state["env"] else None
            except RestoreError as error:
                self._note = f"{error}; "
            self._random_state.load_state_dict(state["torch"])  # an environment may have drawn from it
            if self._observation is None:
                self._note += f"{self.env.name}: the episodes in progress are lost, and new ones begin"
                self.env.set_seed(RESUMED_SEED_OFFSET + self._seed + self._chunks)

    def close(self) -> None:
        """Close the environments."""
        close(self.env)


def acting_weights(loss: Loss) -> list[Tensor]:
    """The learned tensors without target copies; large elements first, so that packing aligns all."""
    targets = {tensor.data_ptr() for tensor in _tensors(loss.target_q_net)}
    own = [tensor for tensor in loss.state_dict().values() if tensor.data_ptr() not in targets]
    return sorted(own, key=lambda tensor: -tensor.element_size())


def packed_weights(loss: Loss) -> np.ndarray:
    """The :func:`acting_weights` as bytes, concatenated."""
    flat = [tensor.detach().cpu().contiguous().reshape(-1) for tensor in acting_weights(loss)]
    return torch.cat([each.view(torch.uint8) for each in flat]).numpy()


def unpack_weights(loss: Loss, weights: np.ndarray) -> None:
    """Load packed weights, also into the target copies."""
    flat, begin = torch.tensor(weights), 0
    for tensor in acting_weights(loss):
        end = begin + tensor.nbytes
        tensor.copy_(flat[begin:end].view(tensor.dtype).view(tensor.shape))
        begin = end
    for target, online in zip(_tensors(loss.target_q_net), _tensors(loss.q_net), strict=True):
        target.copy_(online)


def _tensors(q_net: Any) -> list[Tensor]:
    return [*q_net.state_dict().values()]
