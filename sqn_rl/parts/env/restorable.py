"""Environments whose state can be restored by replaying their actions.

Emulators and Gymnasium environments do not expose their whole state, but they are deterministic given a seed
and actions. So each environment records its actions since it was last seeded, and restoring replays them. A
checksum of all results verifies that the replay was identical.
"""

from abc import abstractmethod
from array import array
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import EnvError, RestoreError, SqnError, explain
from sqn_rl.parts.env.actions import listed
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.types import Step

CHUNK_STEPS, CHUNK_BYTES = 64, 2**20
"""Steps that are added to the checksums at once, or bytes of their observations: fewer calls are faster."""

Result = tuple[bytes, bytes, bytes]
"""The bytes of one step of all environments: observations (newest frames), rewards, terminations.

Score and truncation are left out: the reward stands for the score, and a new seed for a truncation.
"""


class RestorableEnv(BatchedEnv):
    """N environments that are deterministic given their seeds and actions; abstract.

    A subclass implements ``restart``, ``_send`` and ``_receive``, and takes seeds by ``_take_seed``.

    An environment is seeded when ``begin`` resets it, and at the first end of an episode that comes
    ``seed_every`` steps or more after its last seeding. In between it keeps its random state, as seeding a
    console is slow. Four bytes are stored for each step since the last seeding. Where every episode has its
    own seed, the actions of the previous episode are stored too: an environment may change from episode to
    episode, and the replay of an end reveals that.

    Arguments are those of :class:`~sqn_rl.parts.env.base.BatchedEnv`.
    """

    restorable = True
    seed_every = 0
    """Minimum steps between two seedings of an environment; 0: every episode has its own seed."""

    @abstractmethod
    def _send(self, actions: list[int]) -> None:
        """Begin one step in every environment."""

    @abstractmethod
    def _receive(self) -> Step:
        """The result of the step begun by :meth:`_send`, as of :meth:`advance`."""

    def advance(self, action_N: Tensor) -> Step:
        """Take one step in every environment, and reset those whose episode ended; see the base class."""
        self.send(action_N)
        return self.receive()

    def send(self, action_N: Tensor) -> None:
        """Begin one step in every environment; :meth:`receive` must be called next; see the base class."""
        self._require_open()
        actions = listed(action_N, self.num_envs, self.n_actions)  # with others ale-py would hang
        self._current.steps += 1
        for i, action in enumerate(actions):
            history = self._histories[i]
            history.append(action)
            if len(history) > self.seed_every and self._seeds[i] is None:
                self._draw_seed(i)
        self._send(actions)

    def receive(self) -> Step:
        """The result of the step begun by :meth:`send`; see the base class."""
        try:  # not ``_as_env_error``, which takes 2 µs
            step = self._receive()
        except SqnError:
            raise
        except (Exception, SystemExit) as error:
            raise EnvError(self._where(), explain(error)) from error
        self._current.observation = step.observation
        frame = step.observation[:, -1] if self.frame_stack > 1 else step.observation
        reward, terminated = step.reward.numpy(), step.terminated.numpy()
        self._results.append((frame.numpy().tobytes(), reward.tobytes(), terminated.tobytes()))
        if len(self._results) == self._chunk_steps:
            self._update_checksums()
        return step

    def _set_seed(self, seed: int | None) -> None:
        super()._set_seed(seed)
        n, size = self.num_envs, max(1, self._current.observation.nbytes)
        self._histories, self._last_histories = ([array("i") for _ in range(n)] for _ in range(2))
        self._checksums, self._last_checksums = [0] * n, [0] * n
        self._results: list[Result] = []  # not in the checksums yet
        self._reseeds: list[list[int]] = [[] for _ in range(n)]  # after how many of them each was seeded
        self._chunk_steps = max(1, min(CHUNK_STEPS, CHUNK_BYTES // size))

    def _start(self, rows: Sequence[int]) -> None:
        self._update_checksums()
        super()._start(rows)
        for i in rows:  # ``begin`` may have reset them in mid-episode
            self._histories[i], self._last_histories[i] = array("i"), array("i")
            self._checksums[i], self._reseeds[i] = 0, []

    def _take_seed(self, i: int) -> int | None:
        """The seed with which environment ``i`` is reset now; None: it keeps its random state."""
        seed, self._seeds[i] = self._seeds[i], None
        if seed is not None:
            if not self.seed_every:
                self._last_histories[i] = self._histories[i]
            self._histories[i] = array("i")
            self._reseeds[i].append(len(self._results) + 1)  # after the current step
        return seed

    def _update_checksums(self) -> None:
        """Add the steps since the last call to the checksums."""
        if not self._results:
            return
        answers = _per_environment(self._results, self.num_envs)
        for i, reseeds in enumerate(self._reseeds):
            for begin, end in pairwise([0, *reseeds]):
                self._last_checksums[i] = crc32(answers[i, begin:end].data, self._checksums[i])
                self._checksums[i] = 0
            begin = reseeds[-1] if reseeds else 0
            self._checksums[i] = crc32(answers[i, begin:].data, self._checksums[i])
            reseeds.clear()
        self._results.clear()

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The state of every environment between two steps.

        Returns:
            ``entropy``, of the seed sequences; ``seeds``, for each environment the index of the seed from
            which to replay; ``actions`` since then, int32, of one environment after the other; ``lengths``,
            how many each has; ``observation``, the current ones, ``[N, *S]``; ``answers``, for each
            environment the checksums of the previous episode (if it is replayed) and since the last seeding,
            and the number of steps since the last seeding.
        """
        self._update_checksums()
        replayed = list(zip(self._last_histories, self._histories, strict=True))
        histories = [before + since for before, since in replayed]
        actions = [action for history in histories for action in history]
        return {
            "entropy": self._entropy,
            "seeds": [self._first_replayed_seed(i) for i in range(self.num_envs)],
            "lengths": [len(history) for history in histories],
            "actions": torch.tensor(actions, dtype=torch.int32),
            "observation": self._current.observation,
            "answers": self._answer_checksums(),
        }

    def _first_replayed_seed(self, i: int) -> int:
        """The index of the seed from which environment ``i`` is replayed."""
        index = self._seed_counts[i] - 1
        if self._seeds[i] is not None:  # this one was drawn, but not taken
            index -= 1
        return index - 1 if self._last_histories[i] else index

    def _answer_checksums(self) -> list[list[int]]:
        checksums = zip(
            self._last_histories, self._last_checksums, self._checksums, self._histories, strict=True
        )
        return [[last if replayed else 0, since, len(past)] for replayed, last, since, past in checksums]

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> Tensor:
        """Replay every environment to the state in ``state_dict``; see the base class.

        All environments get there at the same step: one with a shorter history is seeded later, and steps
        taken before its seeding do not matter.
        """
        histories = self._parse_histories(state_dict)
        try:
            self._replay(state_dict, histories)
        except SqnError as error:
            raise RestoreError(f"{self.name}: failed while its actions were replayed: {error}") from error
        self._update_checksums()
        answers = self._answer_checksums()
        saved_observation, saved_answers = state_dict["observation"], state_dict.get("answers", answers)
        differs = [
            i
            for i, observation in enumerate(self._current.observation)
            if not torch.equal(saved_observation[i], observation) or saved_answers[i] != answers[i]
        ]
        if differs:
            which = f"environment{'s' if len(differs) > 1 else ''} {', '.join(map(str, differs))}"
            raise RestoreError(f"{self.name}: replayed from its seed, {which} did not reach the saved state")
        return self._current.observation

    def _replay(self, state: Mapping[str, Any], histories: Sequence[list[int]]) -> None:
        self._set_seed(None)
        self._entropy, self._seed_counts = state["entropy"], [seed + 1 for seed in state["seeds"]]
        self.begin()
        longest = max(map(len, histories))
        starts = [longest - len(history) for history in histories]
        for step in range(longest + 1):
            rows = [i for i, start in enumerate(starts) if start == step]
            for i in rows:
                self._seed_counts[i], self._seeds[i] = state["seeds"][i], None
            if rows:
                self._start(rows)
            if step < longest:
                actions = self._allowed_actions()
                for i, (history, start) in enumerate(zip(histories, starts, strict=True)):
                    if step >= start:
                        actions[i] = history[step - start]
                self.advance(torch.tensor(actions))

    def _allowed_actions(self) -> list[int]:
        """For each environment an action that is allowed now: the first of those that are."""
        mask_NA = self._current.action_mask
        return [0] * self.num_envs if mask_NA is None else mask_NA.int().argmax(-1).tolist()

    def _parse_histories(self, state: Mapping[str, Any]) -> list[list[int]]:
        """Each environment's actions since its seed.

        Raises:
            RestoreError: it is not a state of such an environment.
        """
        try:
            entropy, seeds, lengths = state["entropy"], state["seeds"], state["lengths"]
            actions, observation = state["actions"].tolist(), state["observation"]
            answers = state.get("answers", lengths)  # missing in old states
            fits = (
                all(isinstance(number, int) and number >= 0 for number in (entropy, *seeds, *lengths))
                and len(seeds) == len(lengths) == len(answers) == self.num_envs
                and len(actions) == sum(lengths)
                and all(isinstance(action, int) and 0 <= action < self.n_actions for action in actions)
                and (observation.shape, observation.dtype)
                == (self._current.observation.shape, self._current.observation.dtype)
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise RestoreError(f"{self.name}: not a state of this environment ({error!r})") from error
        if not fits:
            raise RestoreError(f"{self.name}: not a state of this environment")
        return [actions[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def _per_environment(results: Sequence[Result], num_envs: int) -> np.ndarray:
    """The results of T steps as bytes of each environment, ``[N, T, *]``."""
    columns = (np.frombuffer(b"".join(column), np.uint8) for column in zip(*results, strict=True))
    rows = [column.reshape(len(results), num_envs, -1) for column in columns]
    return np.ascontiguousarray(np.concatenate(rows, axis=2).swapaxes(0, 1))
