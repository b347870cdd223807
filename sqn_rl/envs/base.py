"""What every environment here is: N games played side by side, for our loop and for TorchRL's.

Our loop calls ``begin`` once and then ``advance``, which starts anew by itself the games that ended. TorchRL
calls ``reset`` and ``step`` and says itself what to start anew. Use the one pair or the other.

Legend: N environments; ``*S`` is the shape of one observation.
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Categorical, Composite, Unbounded
from torchrl.envs import EnvBase

from sqn_rl.data import Step
from sqn_rl.errors import require


class Played(NamedTuple):
    """What one game answers to one action; the names mean what they mean in :class:`~sqn_rl.data.Step`."""

    observation: np.ndarray
    reward: float
    score: float
    terminated: bool
    truncated: bool
    ended: bool


class BatchedEnv(EnvBase):
    """N games of one kind, stepped together; abstract: a family of games says how one of them is played.

    As a TorchRL environment its batch size is ``[N]``. It reads ``action`` (``[N]`` int64) and writes
    ``observation`` (``[N, *S]``), ``reward`` (``[N, 1]``, what to learn from), ``done``, ``terminated`` and
    ``truncated`` (``[N, 1]``). Where it resets what was only a lost life, the game goes on.

    Args:
        name: what run directories and titles call it.
        n_actions: the size of the action set.
        observation_shape: ``S``.
        observation_dtype: float32, or uint8 for bytes.
        frame_skip: emulator frames per environment step.
        num_envs: N.
        seed: of the sequence from which each game draws its own seed, used at its first reset only.

    Raises:
        SettingError: ``num_envs`` is not positive or ``seed`` is negative.
    """

    _has_frame_skip = True  # the games skip frames themselves; else TorchRL would add a skip of its own

    def __init__(
        self,
        *,
        name: str,
        n_actions: int,
        observation_shape: tuple[int, ...],
        observation_dtype: torch.dtype,
        frame_skip: int,
        num_envs: int,
        seed: int,
    ) -> None:
        require(num_envs >= 1, "num_envs", num_envs, "a positive integer")
        require(seed >= 0, "seed", seed, "a non-negative integer")
        super().__init__(device="cpu", batch_size=(num_envs,))
        self.name, self.num_envs, self.n_actions, self.frame_skip = name, num_envs, n_actions, frame_skip
        self.observation_shape, self.observation_dtype = observation_shape, observation_dtype
        self._observation = torch.zeros(num_envs, *observation_shape, dtype=observation_dtype)
        self._goes_on = torch.zeros(num_envs, dtype=torch.bool)
        self._numpy_dtype = self._observation.numpy().dtype
        self._set_seed(seed)

        flag = Categorical(2, shape=(num_envs, 1), dtype=torch.bool)
        observation = Unbounded(shape=(num_envs, *observation_shape), dtype=observation_dtype)
        self.observation_spec = Composite(observation=observation, shape=(num_envs,))
        self.action_spec = Categorical(n_actions, shape=(num_envs,), dtype=torch.int64)
        self.reward_spec = Unbounded(shape=(num_envs, 1))
        self.done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=(num_envs,))

    @abstractmethod
    def _restart_one(self, i: int, seed: int | None) -> np.ndarray:
        """Start game ``i`` anew, seeding it unless ``seed`` is None; return its first observation, ``S``."""

    @abstractmethod
    def _play_one(self, i: int, action: int) -> Played:
        """Play ``action`` in game ``i``; never restart it."""

    def begin(self) -> Tensor:
        """Start every game anew. Returns the first observations, ``[N, *S]``."""
        return self._restart(torch.empty_like(self._observation), range(self.num_envs))

    def advance(self, action_N: Tensor) -> Step:
        """Play one action in every game, and start anew those that ended.

        What is returned is never written to again. If no game ended, ``observation`` and ``next_observation``
        are one tensor.

        Args:
            action_N: ``[N]`` int64.
        """
        step, ended = self._play(action_N)
        if not ended:
            return step
        return step._replace(observation=self._restart(step.next_observation.clone(), ended))

    def _play(self, action_N: Tensor) -> tuple[Step, list[int]]:
        """Play one action everywhere: the step, its ``observation`` still the successor, and who ended."""
        n = self.num_envs
        observation = np.empty((n, *self.observation_shape), self._numpy_dtype)
        reward, score = np.empty((2, n), np.float32)
        terminated, truncated, ended = np.empty((3, n), np.bool_)
        over: list[int] = []
        for i, action in enumerate(action_N.tolist()):
            game = self._play_one(i, action)
            observation[i], reward[i], score[i], terminated[i], truncated[i], ended[i] = game
            if game.ended:
                over.append(i)
        truncated &= ~terminated  # a time limit does not give back a future
        successor = torch.from_numpy(observation)
        rest = map(torch.from_numpy, (reward, terminated, truncated, ended, score))
        return Step(successor, successor, *rest), over

    def _restart(self, observation: Tensor, rows: Iterable[int]) -> Tensor:
        """Start the games ``rows`` anew and write their first observations there."""
        row = observation.numpy()
        for i in rows:
            seed, self._seeds[i] = self._seeds[i], None
            row[i] = self._restart_one(i, seed)
        return observation

    # --- TorchRL's side: a step never restarts, a reset restarts what it is told to -------------------------

    def _set_seed(self, seed: int | None) -> None:
        children = np.random.SeedSequence(seed).spawn(self.num_envs)
        self._seeds: list[int | None] = [int(child.generate_state(1)[0]) for child in children]

    def _step(self, tensordict: TensorDictBase) -> TensorDict:
        step, _ = self._play(tensordict["action"])
        self._observation = step.next_observation
        self._goes_on = step.terminated & ~step.ended
        return self._tensordict(self._observation, step.terminated, step.truncated, reward=step.reward)

    def _reset(self, tensordict: TensorDictBase | None = None, **_: Any) -> TensorDict:
        which = None if tensordict is None else tensordict.get("_reset", None)
        if which is None:
            self._observation = self.begin()
        else:
            rows = (which.reshape(-1) & ~self._goes_on).nonzero().flatten().tolist()
            self._observation = self._restart(self._observation.clone(), rows)
        self._goes_on = no = torch.zeros_like(self._goes_on)
        return self._tensordict(self._observation, no, no)

    def _tensordict(
        self, observation: Tensor, terminated: Tensor, truncated: Tensor, **more: Tensor
    ) -> TensorDict:
        columns = {"terminated": terminated, "truncated": truncated, "done": terminated | truncated, **more}
        columns = {key: column.unsqueeze(-1) for key, column in columns.items()}
        return TensorDict({"observation": observation, **columns}, self.batch_size, device=self.device)
