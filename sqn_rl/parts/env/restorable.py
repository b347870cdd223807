"""Environments that can be brought back to where they were.

Emulators and Gymnasium's games cannot be asked for everything that is in them, but they do the same whenever
they are given the same seed and the same actions. So each game remembers its actions since it was last
seeded, and to bring it back is to play them again. Whether it did the same is seen by a checksum of all that
it answered.
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

from sqn_rl.errors import EnvError, RestoreError, SqnError, blame
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.types import Step

AT_ONCE, AT_ONCE_BYTES = 64, 2**20
"""Steps whose answers are summed up at once, or bytes of their observations: one step costs as much."""

Answer = tuple[bytes, bytes, bytes]
"""What all games answered in one step: observations, of several frames the newest; rewards; ends.

The score is the reward or what it was clipped from, and an end that is not terminal shows as a new seed.
"""


class RestorableEnv(BatchedEnv):
    """N games that do the same whenever they are seeded and played alike; abstract.

    Who plays them implements ``restart``, ``_send`` and ``_receive``, and takes seeds by ``_take_seed``.

    A game is seeded when it is started by hand, and when it has ended and been played ``seed_every`` steps
    since it was last seeded. Until then it goes on drawing, as a console does that costs much to seed. Four
    bytes are remembered for each step since. Where each episode has a seed of its own, the one before is
    remembered too: what an episode is may depend on how many came before, which shows at an end.

    Takes what :class:`~sqn_rl.parts.env.base.BatchedEnv` takes.
    """

    restorable = True
    seed_every = 0
    """Steps between two seeds of a game, at least; 0: each of its episodes has a seed of its own."""

    @abstractmethod
    def _send(self, actions: list[int]) -> None:
        """Begin to play an action in every game."""

    @abstractmethod
    def _receive(self) -> Step:
        """What :meth:`advance` returns, for the actions that were sent."""

    def advance(self, action_N: Tensor) -> Step:
        """Play one action in every game, and start anew those that ended; see the base class."""
        self.send(action_N)
        return self.receive()

    def send(self, action_N: Tensor) -> None:
        """Begin to play one action in every game; :meth:`receive` gives the answer, and comes next."""
        self._now.steps += 1
        actions = action_N.tolist()
        for i, action in enumerate(actions):
            past = self._pasts[i]
            past.append(action)
            if len(past) > self.seed_every and self._seeds[i] is None:
                self._draw_seed(i)
        self._send(actions)

    def receive(self) -> Step:
        """What :meth:`advance` returns, for the actions that were sent; see the base class."""
        try:  # and not ``_blamed``, which takes 2 µs
            step = self._receive()
        except SqnError:
            raise
        except (Exception, SystemExit) as error:
            raise EnvError(self._where(), blame(error)) from error
        self._now.observation = step.observation
        seen = step.observation[:, -1] if self.frame_stack > 1 else step.observation
        reward, terminated = step.reward.numpy(), step.terminated.numpy()
        self._answered.append((seen.numpy().tobytes(), reward.tobytes(), terminated.tobytes()))
        if len(self._answered) == self._at_once:
            self._sum_up()
        return step

    def _set_seed(self, seed: int | None) -> None:
        super()._set_seed(seed)
        n, size = self.num_envs, max(1, self._now.observation.nbytes)
        self._pasts, self._befores = ([array("i") for _ in range(n)] for _ in "12")
        self._sums, self._sums_before = [0] * n, [0] * n
        self._anew: list[list[int]] = [[] for _ in range(n)]  # after which of the steps below it was seeded
        self._answered: list[Answer] = []  # not in the sums yet
        self._at_once = max(1, min(AT_ONCE, AT_ONCE_BYTES // size))

    def _start(self, rows: Sequence[int]) -> None:
        self._sum_up()
        super()._start(rows)
        for i in rows:  # no end led to this
            self._pasts[i], self._befores[i], self._sums[i], self._anew[i] = array("i"), array("i"), 0, []

    def _take_seed(self, i: int) -> int | None:
        """The seed with which game ``i`` is started anew now; None: it goes on drawing."""
        seed, self._seeds[i] = self._seeds[i], None
        if seed is not None:
            if not self.seed_every:
                self._befores[i] = self._pasts[i]
            self._pasts[i] = array("i")
            self._anew[i].append(len(self._answered) + 1)  # after the step that is being made
        return seed

    def _sum_up(self) -> None:
        """Bring the checksums up to date."""
        if not self._answered:
            return
        answers = _by_game(self._answered, self.num_envs)
        for i, anew in enumerate(self._anew):
            for begin, end in pairwise([0, *anew]):
                self._sums_before[i], self._sums[i] = crc32(answers[i, begin:end].data, self._sums[i]), 0
            self._sums[i] = crc32(answers[i, anew[-1] if anew else 0 :].data, self._sums[i])
            anew.clear()
        self._answered.clear()

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Where every game is, between two steps.

        Returns:
            ``entropy``, of the seeds; ``seeds``, which of its own each game is given to play it again;
            ``actions``, those since, int32, one game's after the other's; ``lengths``, how many each has;
            ``observation``, what the games show, ``[N, *S]``; ``answers``, checksums of what they answered in
            the episode before, if it is played again, and since, and how many steps are since.
        """
        self._sum_up()
        waits = (seed is not None for seed in self._seeds)
        last = [drawn - 1 - waiting for drawn, waiting in zip(self._drawn, waits, strict=True)]
        pasts = [before + past for before, past in zip(self._befores, self._pasts, strict=True)]
        return {
            "entropy": self._entropy,
            "seeds": [seed - bool(before) for seed, before in zip(last, self._befores, strict=True)],
            "lengths": [len(past) for past in pasts],
            "actions": torch.tensor([action for past in pasts for action in past], dtype=torch.int32),
            "observation": self._now.observation,
            "answers": self._answers(),
        }

    def _answers(self) -> list[list[int]]:
        sums = zip(self._befores, self._sums_before, self._sums, self._pasts, strict=True)
        return [[before if counts else 0, since, len(past)] for counts, before, since, past in sums]

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> Tensor:
        """Play every game to where it was when ``state_dict`` was made; see the base class.

        The games end up there together: those with a shorter past begin later, and are played for nothing
        before.
        """
        pasts = self._read(state_dict)
        try:
            self._replay(state_dict, pasts)
        except SqnError as error:
            raise RestoreError(f"{self.name}: failed while it was played again: {error}") from error
        self._sum_up()
        answers = self._answers()
        before = zip(state_dict["observation"], state_dict.get("answers", answers), strict=True)
        now = zip(self._now.observation, answers, strict=True)
        differs = [
            i
            for i, ((shown, answered), (shows, answer)) in enumerate(zip(before, now, strict=True))
            if not torch.equal(shown, shows) or answered != answer
        ]
        if differs:
            games = ", ".join(map(str, differs))
            message = f"{self.name}: played again from its seed, game {games} did not come to where it was"
            raise RestoreError(message)
        return self._now.observation

    def _replay(self, state: Mapping[str, Any], pasts: Sequence[list[int]]) -> None:
        self._set_seed(None)
        self._entropy, self._drawn = state["entropy"], [seed + 1 for seed in state["seeds"]]
        self.begin()
        longest = max(map(len, pasts))
        for now in range(longest + 1):
            rows = [i for i, past in enumerate(pasts) if longest - len(past) == now]
            for i in rows:
                self._drawn[i], self._seeds[i] = state["seeds"][i], None
            if rows:
                self._start(rows)
            if now < longest:
                late = (now - longest + len(past) for past in pasts)
                actions = [past[at] if at >= 0 else 0 for past, at in zip(pasts, late, strict=True)]
                self.advance(torch.tensor(actions))

    def _read(self, state: Mapping[str, Any]) -> list[list[int]]:
        """Each game's actions since its seed.

        Raises:
            RestoreError: it is no state of such an environment.
        """
        try:
            entropy, seeds, lengths = state["entropy"], state["seeds"], state["lengths"]
            actions, observation = state["actions"].tolist(), state["observation"]
            answers = state.get("answers", lengths)  # which old states have not
            fits = (
                all(isinstance(number, int) and number >= 0 for number in (entropy, *seeds, *lengths))
                and len(seeds) == len(lengths) == len(answers) == self.num_envs
                and len(actions) == sum(lengths)
                and all(isinstance(action, int) and 0 <= action < self.n_actions for action in actions)
                and (observation.shape, observation.dtype)
                == (self._now.observation.shape, self._now.observation.dtype)
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise RestoreError(f"{self.name}: no state of this environment ({error!r})") from error
        if not fits:
            raise RestoreError(f"{self.name}: no state of this environment")
        return [actions[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def _by_game(answered: Sequence[Answer], games: int) -> np.ndarray:
    """What each of so many games answered in these steps: bytes, ``[N, T, *]``."""
    columns = (np.frombuffer(b"".join(column), np.uint8) for column in zip(*answered, strict=True))
    rows = [column.reshape(len(answered), games, -1) for column in columns]
    return np.ascontiguousarray(np.concatenate(rows, axis=2).swapaxes(0, 1))
