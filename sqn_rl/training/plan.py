"""The plan of a run: settings with their ranges, and what is due at which environment step."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from sqn_rl.errors import SettingError

INVALID = object()
"""The result of :func:`convert` for a value of the wrong type."""


def convert(value: Any, kind: Any) -> Any:
    """``value`` as a ``kind`` if nothing is lost, as with 1e5 as a whole number; else :data:`INVALID`."""
    if isinstance(value, bool) and kind is not bool:
        return INVALID
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int):
        return float(value) if value.bit_length() < 1024 else INVALID
    return value if isinstance(value, kind) else INVALID


def setting(check: Callable[[Any], Any], expected: str, default: Any = MISSING) -> Any:
    """A field of :class:`Settings`: a check of its values, and the text of an error for what is expected."""
    return field(default=default, metadata={"check": check, "expected": expected})


def one_of(*names: str, default: str) -> Any:
    """A field of :class:`Settings` for one of a few names."""
    expected = f"{', '.join(names[:-1])} or {names[-1]}"
    return field(
        default=default, metadata={"check": names.__contains__, "expected": expected, "names": names}
    )


def whole(least: int, what: str, default: Any = MISSING) -> Any:
    """A field of :class:`Settings` for a whole number of ``what``, at least ``least``, exact as a float."""
    expected = f"a whole number of {what}, at least {least} and below 2^53"
    return setting(lambda value: least <= value < 2**53, expected, default)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings, each checked against the type and range of its field.

    Raises:
        SettingError: a value has the wrong type or is out of range.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name)
            value = convert(given, each.type)
            if value is INVALID or not each.metadata["check"](value):
                raise SettingError(each.name, given, each.metadata["expected"])
            object.__setattr__(self, each.name, value)


@dataclass(frozen=True, kw_only=True)
class Plan(Settings):
    """The budget of a run, and the intervals of updates, evaluations and checkpoints, in environment steps.

    Raises:
        SettingError: a value has the wrong type or is out of range.
    """

    steps: int = whole(1, "environment steps")
    """The budget: agent decisions, over all environments."""
    seed: int = setting(lambda value: 0 <= value < 2**31, "a whole number in [0, 2^31)", 0)
    """Global random seed."""
    update_ratio: float = setting(lambda value: 0 < value <= 1e6, "a positive number of updates, at most 1e6")
    """Updates per environment step after the warm-up, exact for any number of environments."""
    batch_size: int = whole(1, "transitions")
    """Transitions per update; with replay=sequences, sequences."""
    warmup_steps: int = whole(0, "environment steps")
    """Uniformly random actions and no updates until here."""
    eval_every: int = whole(0, "environment steps", 0)
    """Evaluate at each multiple, and at the end; 0: only at the end."""
    checkpoint_every: int = whole(0, "environment steps", 10_000)
    """Write a checkpoint at each multiple, and at the end; 0: only at the end."""
    checkpoint_best: bool = setting(lambda value: True, "true or false", False)
    """Keep the weights of the evaluation with the highest mean return too."""
    log_every: int = whole(1, "environment steps", 1000)
    """Write metrics at each multiple."""

    def total_updates(self, env_steps: int) -> int:
        """How many updates must have been made after this many environment steps: with 0.29, 29 after 100."""
        due = max(0, env_steps - self.warmup_steps) * self.update_ratio
        return int(round(due, 6))  # 100 · 0.29 is 28.99…96


class Schedule:
    """What is due in the current iteration, whose environment steps are those in (before, now].

    Args:
        plan: the plan of the run.
        num_envs: N, the environment steps of an iteration of the loop.
        env_steps: the number of environment steps taken so far.
    """

    def __init__(self, plan: Plan, num_envs: int, env_steps: int) -> None:
        self._plan, self._num_envs = plan, num_envs
        self.before, self.now = max(0, env_steps - num_envs), env_steps  # 0 is a multiple, but not reached

    def advance(self) -> None:
        """Go on to the next iteration of the loop."""
        self.before, self.now = self.now, self.now + self._num_envs

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self.now >= self._plan.steps

    @property
    def policy_acts(self) -> bool:
        """Whether the warm-up is over, and the policy acts."""
        return self.before >= self._plan.warmup_steps

    @property
    def total_updates(self) -> int:
        """How many updates must have been made; none before the first step is stored."""
        return self._plan.total_updates(self.now) if self.policy_acts and self.before else 0

    @property
    def metrics(self) -> bool:
        """Whether metrics are due."""
        return self._reaches(self._plan.log_every)

    @property
    def checkpoint(self) -> bool:
        """Whether a checkpoint is due."""
        return self._reaches(self._plan.checkpoint_every)

    @property
    def evaluation(self) -> bool:
        """Whether an evaluation is due."""
        return self._reaches(self._plan.eval_every)

    def _reaches(self, every: int) -> bool:
        """Whether a multiple of ``every``, or the end, lies in (before, now]."""
        return self.is_over or (every > 0 and self.now // every > self.before // every)
