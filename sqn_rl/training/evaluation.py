"""Evaluation: full episodes, true rewards, no learning."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from sqn_rl.errors import RecipeError, SettingError, is_whole, require, require_bool
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.opening import closing_env
from sqn_rl.protocols import Actor
from sqn_rl.training.player import Player
from sqn_rl.training.random_state import GLOBAL_SEED_OFFSET, RandomState
from sqn_rl.training.stopping import Stopped
from sqn_rl.training.torch_modes import default_float32
from sqn_rl.types import Step

MAX_ENVS = 10
"""The most environments that an evaluation opens."""

EVALUATION_SEED = 1_000_000
"""Added to a run's seed for its evaluation episodes, which differ from the training episodes."""

MAX_STEPS = 27_000
"""The episode limit, in steps, of environments without a time limit: that of Atari."""


@dataclass(frozen=True)
class Evaluation:
    """The returns of several full episodes."""

    returns: list[float]
    """Undiscounted, unclipped; one per episode."""
    lengths: list[int]
    """Episode lengths, in environment steps."""
    greedy: bool
    """Whether actions were greedy, or sampled from the policy."""
    cut: list[bool] = field(default_factory=list)
    """Whether each episode was cut; its return is the sum until then."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns over episodes, not over seeds."""
        return float(np.std(self.returns))

    @property
    def iqm(self) -> float:
        """The interquartile mean (Agarwal et al. 2021)."""
        return float(interquartile_mean(self.returns))

    def row(self) -> dict[str, Any]:
        """All values, as a row of a log."""
        summary = {"mean": self.mean, "std": self.std, "iqm": self.iqm, "episodes": len(self.returns)}
        return summary | asdict(self) | {"cut": sum(self.cut)}


def interquartile_mean(values: ArrayLike) -> np.ndarray:
    """The mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    ``[..., N]`` → ``[...]``.
    """
    ordered = np.sort(values, axis=-1)
    left_out = ordered.shape[-1] // 4
    return ordered[..., left_out : ordered.shape[-1] - left_out].mean(-1)


def format_evaluation(row: Mapping[str, Any]) -> str:
    """A row of ``evaluations.jsonl`` as text: ``186.6 ± 20.1 (mean ± std of 20 greedy episodes)``."""
    how = "greedy" if row["greedy"] else "sampled"
    cut = f", {row['cut']} of them cut after {max(row['lengths']):,} steps (eval_max_steps)"
    what = f"mean ± std of {row['episodes']} {how} episodes" if row["episodes"] > 1 else f"1 {how} episode"
    return f"{mean_and_std(row)} ({what}{cut if row['cut'] else ''})"


def mean_and_std(row: Mapping[str, Any]) -> str:
    """``186.6 ± 20.1``; for a single episode, which has no spread, only its return."""
    spread = f" ± {row['std']:.1f}" if row["episodes"] > 1 else ""
    return f"{row['mean']:.1f}{spread}"


def step_limit(env: BatchedEnv, max_steps: int) -> int:
    """The episode limit of an evaluation: ``max_steps``, or if that is 0 the environment's own."""
    return max_steps or env.max_steps or MAX_STEPS


def evaluation_env(make_env: Callable[..., BatchedEnv], episodes: int, seed: int) -> BatchedEnv:
    """Make the environments of an evaluation: one per episode, at most :data:`MAX_ENVS`, or just one.

    Args:
        make_env: makes environments.
        episodes: the number of episodes.
        seed: the seed of the environments.

    Raises:
        RecipeError, SettingError: not even one environment can be opened.
    """
    num_envs = min(episodes, MAX_ENVS)
    try:
        return make_env(num_envs=num_envs, seed=seed, training=False)
    except (RecipeError, SettingError):
        if num_envs == 1:
            raise
    return make_env(num_envs=1, seed=seed, training=False)


def evaluate_in_new(
    actor: Actor, make_env: Callable[..., BatchedEnv], *, episodes: int, seed: int, **options: Any
) -> Evaluation:
    """Make the environments of an evaluation, evaluate there, and close them.

    Args:
        actor: as for :func:`evaluate`.
        make_env: makes environments.
        episodes: the number of episodes.
        seed: the seed of the run.
        options: further arguments of :func:`evaluate`.

    Raises:
        RecipeError, SettingError: no environment can be opened.
    """
    _require_in_range(episodes, seed, options.get("max_steps", 0))
    with closing_env(evaluation_env(make_env, episodes, EVALUATION_SEED + seed)) as env:
        return evaluate(actor, env, episodes=episodes, seed=seed, **options)


def _require_in_range(episodes: Any, seed: Any, max_steps: Any) -> None:
    """Raise :class:`SettingError` unless they are whole numbers below 2^32, as Gymnasium's seeds are."""
    for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0), ("max_steps", max_steps, 0)):
        fits = is_whole(value) and least <= int(value) < 2**32
        require(fits, name, value, f"a whole number in [{least}, 2^32)")


def require_ours(env: object) -> None:
    """Refuse an environment that is none of this package, such as one of Gymnasium."""
    require(hasattr(env, "send"), "env", env, "one of sqn_rl, such as GymEnv(env)")


@default_float32()
def evaluate(
    actor: Actor,
    env: BatchedEnv,
    *,
    episodes: int,
    greedy: bool,
    seed: int,
    max_steps: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Play ``episodes`` full episodes and report their returns.

    Each of the N environments plays its share from start to end, so that short episodes are not favoured.
    The actor's generator does not change: it samples from another, which is seeded here. torch's global
    generators are seeded here too, and restored afterwards.

    Args:
        actor: ``act(observation, greedy=, generator=)``.
        env: made with ``training=False``; it is reset first.
        episodes: the number of episodes.
        greedy: take the best action instead of sampling.
        seed: the seed of both generators.
        max_steps: cut an episode that is longer; 0: after the environment's own time limit, or
            :data:`MAX_STEPS` where it has none.
        should_stop: called at every step; True stops the evaluation.

    Raises:
        SettingError: ``episodes`` is not a positive whole number, ``max_steps`` or ``seed`` is negative,
            ``env`` is none of this package, or ``actor`` does not act.
        Stopped: ``should_stop`` returned True.
    """
    _require_in_range(episodes, seed, max_steps)
    require_bool("greedy", greedy)
    require_ours(env)
    require(hasattr(actor, "act"), "actor", actor, "an actor, such as agent.actor")
    episodes, seed = int(episodes), int(seed)  # they may be NumPy's
    generator = torch.Generator(device=actor.device).manual_seed(seed)
    tally = _EpisodeTally(episodes, env.num_envs, step_limit(env, max_steps))
    player = Player(actor, env.num_envs)
    random_state = RandomState(GLOBAL_SEED_OFFSET + seed, actor.device)
    with random_state:
        observation = env.begin()
    while any(tally.left):
        if should_stop():
            raise Stopped
        with random_state:
            action = player.act(observation, greedy=greedy, generator=generator, **env.act_options)
            env.send(action)
            step = env.receive()
        player.record(action, step)
        observation = step.observation
        cut = tally.add(step)
        if cut and any(tally.left):
            player.begin(cut)
            with random_state:
                observation = env.begin(cut)
    return Evaluation(tally.returns, tally.lengths, greedy, tally.cut)


class _EpisodeTally:
    """The episodes of an evaluation so far: those that ended, and the current one of each environment.

    Args:
        episodes: the number of episodes of the evaluation.
        num_envs: N.
        limit: cut an episode after so many steps.
    """

    def __init__(self, episodes: int, num_envs: int, limit: int) -> None:
        self.returns: list[float] = []
        self.lengths: list[int] = []
        self.cut: list[bool] = []
        self.left = _shares(episodes, num_envs)
        """How many episodes each environment has yet to finish."""
        self._limit = limit
        self._score = torch.zeros(num_envs, dtype=torch.float64)
        self._length = torch.zeros(num_envs, dtype=torch.int64)

    def add(self, step: Step) -> list[int]:
        """Add a step of every environment; return the environments whose episodes are cut."""
        self._score += step.score
        self._length += 1
        cut = (self._length >= self._limit) & ~step.ended
        for row in (step.ended | cut).nonzero().flatten().tolist():
            if self.left[row]:
                self.left[row] -= 1
                self.returns.append(self._score[row].item())
                self.lengths.append(int(self._length[row]))
                self.cut.append(bool(cut[row]))
            self._score[row], self._length[row] = 0, 0
        return cut.nonzero().flatten().tolist()


def _shares(episodes: int, num_envs: int) -> list[int]:
    """How many of the episodes each environment plays; the first ones play the remainder."""
    share, remainder = divmod(episodes, num_envs)
    return [share + 1] * remainder + [share] * (num_envs - remainder)
