"""Evaluation: full games, true rewards, no learning."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from sqn_rl.contracts import Actor
from sqn_rl.envs.base import BatchedEnv
from sqn_rl.stopping import Stopped

AT_ONCE = 10
"""Games of an evaluation that are played side by side, at most."""


@dataclass(frozen=True)
class Evaluation:
    """The returns of some full games."""

    returns: list[float]
    """Undiscounted, unclipped; one per game."""
    lengths: list[int]
    """In environment steps."""
    greedy: bool
    """Whether the best action was always taken, or the policy was sampled."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over games, not over seeds."""
        return float(np.std(self.returns))

    @property
    def iqm(self) -> float:
        """Interquartile mean: the mean of the middle half (Agarwal et al. 2021)."""
        from scipy.stats import trim_mean

        return float(trim_mean(self.returns, 0.25))

    def row(self) -> dict[str, Any]:
        """Everything, for a log."""
        summary = {"mean": self.mean, "std": self.std, "iqm": self.iqm, "episodes": len(self.returns)}
        return summary | asdict(self)


def evaluate(
    actor: Actor,
    env: BatchedEnv,
    *,
    episodes: int,
    greedy: bool,
    seed: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Play ``episodes`` full games and report their returns.

    Each of the N environments plays its share from start to end, so that short games are not favoured.
    Nothing of the actor's state changes: when it samples, it draws from a generator seeded here.

    Args:
        actor: ``act(observation, greedy=, generator=)``.
        env: made with ``training=False``; it is reset first.
        episodes: the number of games.
        greedy: take the best action instead of sampling.
        seed: of the sampling generator.
        should_stop: asked at every step.

    Raises:
        Stopped: ``should_stop`` said so.
    """
    generator = torch.Generator(device=actor.device).manual_seed(seed)
    left = [episodes // env.num_envs + (i < episodes % env.num_envs) for i in range(env.num_envs)]
    score, length = torch.zeros(env.num_envs), torch.zeros(env.num_envs, dtype=torch.int64)
    returns: list[float] = []
    lengths: list[int] = []
    observation = env.begin()
    while any(left):
        if should_stop():
            raise Stopped
        env.send(actor.act(observation, greedy=greedy, generator=generator))
        step = env.receive()
        observation = step.observation
        score += step.score
        length += 1
        for i in step.ended.nonzero().flatten().tolist():
            if left[i]:
                left[i] -= 1
                returns.append(score[i].item())
                lengths.append(int(length[i]))
            score[i], length[i] = 0, 0
    return Evaluation(returns, lengths, greedy)
