"""What a recipe can say: the run-level settings with their ranges, and the slots."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from sqn_rl.errors import SettingError


@dataclass(frozen=True)
class Slot:
    """A place in the wiring that one part fills.

    A part is built as soon as the slots before it are, unless some keywords only its user knows: then it is
    handed on as a maker that waits for what is ``given``.
    """

    name: str
    gives: str
    """What the later slots may ask for it by."""
    given: tuple[str, ...] = ()
    """The keywords that its user gives; none: the part is built at once."""


SLOTS = (
    Slot("env", "make_env", given=("num_envs", "seed", "training")),
    Slot("layers", "layer", given=("in_features", "out_features", "members")),
    Slot("encoder", "encoder", given=("observation_shape", "layer")),
    Slot("head", "head", given=("in_features", "n_actions", "layer", "outputs")),
    Slot("q_net", "q_net"),
    Slot("temperature", "temperature"),
    Slot("actor", "actor"),
    Slot("loss", "loss"),
    Slot("target_update", "target_update"),
    Slot("optimizer", "optimizer", given=("params",)),
    Slot("returns", "returns"),
    Slot("replay", "replay"),
    Slot("logger", "logger", given=("directory",)),
)
"""Every slot, in the order of building. A part may ask by keyword for what the slots before it give."""


def _setting(check: Callable[[Any], Any], expected: str, default: Any = MISSING) -> Any:
    return field(default=default, metadata={"check": check, "expected": expected})


def _whole(least: int, what: str, default: Any = MISSING) -> Any:
    return _setting(lambda value: value >= least, f"a whole number of {what}, at least {least}", default)


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run-level settings: the same names in every recipe and on every command line.

    Those without a default here have one in the task (``components/task/``). Time is counted in environment
    steps: agent decisions, over all environments.

    Raises:
        SettingError: a value has the wrong type or is out of range.
    """

    recipe: str = _setting(bool, "the name of a recipe")
    steps: int = _whole(1, "environment steps")
    """The budget."""
    seed: int = _setting(lambda value: 0 <= value < 2**31, "a whole number in [0, 2^31)", 0)
    """Of everything that is random."""
    num_envs: int = _whole(1, "environments")
    """Environments that step together."""
    update_ratio: float = _setting(lambda value: 0 < value < math.inf, "a positive number of updates")
    """Updates per environment step after the warm-up."""
    batch_size: int = _whole(1, "transitions")
    """Transitions per update."""
    warmup_steps: int = _whole(0, "environment steps")
    """Random actions and no updates until here."""
    gamma: float = _setting(lambda value: 0 <= value <= 1, "a number in [0, 1]")
    """γ, the discount per environment step."""
    threads: int = _setting(lambda value: 1 <= value <= 1024, "a whole number of threads in [1, 1024]", 1)
    """Of torch."""
    device: str = _setting(re.compile(r"cpu|(cuda|mps)(:\d+)?").fullmatch, "cpu, cuda or mps", "cpu")
    """Where the networks and the replay are."""
    compile: str = _setting(re.compile("auto|always|never").fullmatch, "auto, always or never", "auto")
    """Compile the update; auto: where the budget is worth it."""
    precision: str = _setting(re.compile("auto|fp32|bf16").fullmatch, "auto, fp32 or bf16", "auto")
    """Of encoders; all else is fp32. auto: bf16 where images are read and the processor has AMX."""
    out: str | None = _setting(lambda value: value is None or bool(value), "a folder", None)
    """The run directory; null: ``runs/<recipe>/<env>/<time>-s<seed>``."""
    eval_every: int = _whole(0, "environment steps", 0)
    """Evaluate at each multiple; 0: only at the end."""
    eval_episodes: int = _whole(1, "games", 20)
    """Games per evaluation."""
    eval_max_steps: int = _whole(0, "environment steps", 0)
    """Cut a longer game of an evaluation; 0: after the environment's time limit, or 27,000 if it has none."""
    checkpoint_every: int = _whole(0, "environment steps", 10_000)
    """Write a checkpoint at each multiple; 0: only at the end."""
    checkpoint_keep: int = _whole(1, "checkpoints", 2)
    """The newest so many are kept."""
    resume: str = _setting(("never", "auto").__contains__, "never or auto", "never")
    """Of a run in ``out`` that has not ended: refuse, or go on with it; of one that has, do nothing."""
    log_every: int = _whole(1, "environment steps", 1000)
    """Write metrics at each multiple."""

    @property
    def evaluates_between(self) -> bool:
        """Whether there are evaluations before training ends, beside whose environments its own stay open."""
        return 0 < self.eval_every < self.steps

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = convert(getattr(self, setting.name), setting.type)
            if value is _WRONG or not setting.metadata["check"](value):
                raise SettingError(setting.name, getattr(self, setting.name), setting.metadata["expected"])
            object.__setattr__(self, setting.name, value)
        if self.resume == "auto" and self.out is None:
            raise SettingError("resume", "auto", "`never`, as no out=DIR says which run to go on with")


SETTINGS = [setting.name for setting in fields(Run)]
"""The run-level settings' names."""

DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Run) if each.default is not MISSING}
"""The run-level settings that have a default of ours."""

_WRONG = object()


def convert(value: Any, kind: Any) -> Any:
    """``value`` as a ``kind`` where that loses nothing, as 1e5 is a whole number; else ``_WRONG``."""
    if isinstance(value, bool) and kind is not bool:
        return _WRONG
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int):
        return float(value) if value.bit_length() < 1024 else _WRONG
    return value if isinstance(value, kind) else _WRONG


_KINDS: dict[Any, str] = {
    bool: "true or false",
    (int, float): "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}


def conform(key: str, value: Any, example: Any) -> Any:
    """``value``, if it is the kind of thing that ``example`` is; 1e5 becomes whole where the example is.

    Raises:
        SettingError: it is another kind of thing. Null goes with everything.
    """
    for kind, expected in _KINDS.items():
        if value is not None and isinstance(example, kind):
            if convert(value, kind) is _WRONG:
                raise SettingError(key, value, f"{expected}, such as {example}")
            whole = convert(value, int) if type(example) is int else _WRONG
            return value if whole is _WRONG else whole
    return value
