"""The schema of recipes: run-level settings with their ranges, slots, and names used by other programs."""

import inspect
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from sqn_rl.errors import SettingError, did_you_mean, for_atari_id, in_snake_case
from sqn_rl.recipe.provenance import override
from sqn_rl.training.plan import INVALID, Plan, convert, one_of, setting, whole


@dataclass(frozen=True)
class Slot:
    """A place in the wiring that one part fills.

    A part is built as soon as the slots before it are, unless it takes keywords that only its user knows:
    then a maker is passed on, which waits for these ``late_keywords``.
    """

    name: str
    provides: str
    """The name by which later slots may ask for its part."""
    late_keywords: tuple[str, ...] = ()
    """The keywords that its user passes; without any, the part is built at once."""


SLOTS = (
    Slot("env", "make_env", late_keywords=("num_envs", "seed", "training")),
    Slot("collect", "collect"),
    Slot("layers", "layer", late_keywords=("in_features", "out_features", "members")),
    Slot("encoder", "encoder", late_keywords=("observation_shape", "layer")),
    Slot("head", "head", late_keywords=("in_features", "n_actions", "layer", "outputs")),
    Slot("q_net", "q_net"),
    Slot("temperature", "temperature"),
    Slot("actor", "actor"),
    Slot("loss", "loss"),
    Slot("target_update", "target_update"),
    Slot("optimizer", "optimizer", late_keywords=("params",)),
    Slot("returns", "returns"),
    Slot("replay", "replay"),
    Slot("logger", "logger", late_keywords=("directory",)),
)
"""Every slot, in the order of building. A part may ask by keyword for what the slots before it provide."""

SLOT_NAMES = [slot.name for slot in SLOTS]

LATER: Mapping[str, Any] = {"collect": {"_target_": "sqn_rl.LocalCollect"}}
"""The slots that runs and recipes of earlier versions lack, and the parts that fill them there."""


@dataclass(frozen=True, kw_only=True)
class Run(Plan):
    """The run-level settings: the same names in every recipe and on every command line.

    Those without a default here have one in the task (``components/task/``).

    Raises:
        SettingError: a value has the wrong type or is out of range.
    """

    recipe: str = setting(bool, "the name of a recipe")
    """What is trained."""
    num_envs: int = setting(lambda value: 1 <= value <= 2**16, "a whole number in [1, 65,536]")
    """Environments that step together."""
    gamma: float = setting(lambda value: 0 <= value <= 1, "a number in [0, 1]")
    """γ, the discount per environment step."""
    threads: int = setting(lambda value: 1 <= value <= 1024, "a whole number of threads in [1, 1024]", 1)
    """Threads of torch."""
    device: str = setting(re.compile(r"cpu|(cuda|mps)(:\d+)?").fullmatch, "cpu, cuda or mps", "cpu")
    """Where the networks and the replay are."""
    compile: str = one_of("auto", "always", "never", default="auto")
    """Compile the update; auto: where the budget is worth it."""
    precision: str = one_of("auto", "fp32", "bf16", default="auto")
    """Precision of encoders; all else is fp32. auto: bf16 for large images and wide networks, with AMX."""
    out: str | None = setting(lambda value: value is None or bool(value), "a folder", None)
    """The run directory; null: ``runs/<recipe>/<env>/<time>-s<seed>``."""
    eval_episodes: int = whole(1, "episodes", 20)
    """Episodes per evaluation."""
    eval_max_steps: int = whole(0, "environment steps", 0)
    """Cut a longer episode of an evaluation; 0: after the environment's time limit, or 27,000 without one."""
    checkpoint_keep: int = whole(1, "checkpoints", 2)
    """How many checkpoints are kept."""
    resume: str = one_of("never", "auto", default="never")
    """If ``out`` has a run that has not ended: refuse, or resume it; one that has ended is left as it is."""

    @property
    def evaluates_between(self) -> bool:
        """Whether there are evaluations before training ends, beside whose environments its own stay open."""
        return 0 < self.eval_every < self.steps

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume == "auto" and self.out is None:
            raise SettingError("resume", "auto", "`never`, as no out=DIR says which run to go on with")


SETTINGS = [setting.name for setting in fields(Run)]
"""The run-level settings' names."""


def meanings() -> dict[str, str]:
    """What each run-level setting means: the docstring below it."""
    source = "\n".join(map(inspect.getsource, (Plan, Run)))
    documented = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""$', source, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()) for name, text in documented}


DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(Run) if each.default is not MISSING}
"""The run-level settings that have a default of ours."""

_KINDS: dict[Any, str] = {
    bool: "true or false",
    (int, float): "a number",
    str: "a text",
    list: "a list",
    dict: "a mapping",
}


def conform(key: str, value: Any, example: Any, origin: str) -> Any:
    """``value``, if it is of the same kind as ``example``. Null is of every kind.

    A number such as 1e5 becomes a whole number where the example is one.

    Raises:
        SettingError: the value is of another kind, NaN or infinite.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(key, value, "a finite number")
    for kind, expected in _KINDS.items():
        if value is not None and isinstance(example, kind):
            if convert(value, kind) is INVALID:
                where = f", its value in {origin}" if origin else ""
                raise SettingError(key, value, f"{expected}, such as {example}{where}")
            whole_number = convert(value, int) if type(example) is int else INVALID
            return value if whole_number is INVALID else whole_number
    return value


GYM_ID = "env=gym env.id={}"
FOREIGN_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("learning_rate", "step_size"), "lr={}"),
    **dict.fromkeys(
        ("total_timesteps", "timesteps", "total_steps", "num_timesteps", "max_steps"), "steps={}"
    ),
    **dict.fromkeys(("learning_starts", "start_steps", "starting_steps", "min_replay"), "warmup_steps={}"),
    **dict.fromkeys(
        ("buffer_size", "memory_size", "replay_size", "replay_buffer_size"), "replay_capacity={}"
    ),
    **dict.fromkeys(("minibatch_size", "batch"), "batch_size={}"),
    **dict.fromkeys(
        ("algo", "algorithm", "agent", "model", "config", "preset"), "recipe={}; `sqn-list recipe` shows all"
    ),
    **dict.fromkeys(("n_envs", "num_workers", "n_environments"), "num_envs={}"),
    **dict.fromkeys(("discount", "discount_factor"), "gamma={}"),
    **dict.fromkeys(("net_arch", "hidden_sizes", "hidden_dims", "hidden_size"), "hidden=[{}]"),
    **dict.fromkeys(
        ("alpha", "ent_coef", "entropy_coef"), "temperature=fixed temperature.alpha={}, or initial_alpha={}"
    ),
    **dict.fromkeys(
        ("train_freq", "train_frequency", "gradient_steps", "replay_ratio"),
        "update_ratio=…, updates for each environment step",
    ),
    **dict.fromkeys(
        ("target_network_frequency", "target_update_interval", "target_update_freq"),
        "target_update=periodic target_update.every={}, counted in updates",
    ),
    **dict.fromkeys(
        ("epsilon", "exploration_fraction"), "actor=epsilon_greedy; `sqn-list actor` shows its settings"
    ),
    "seeds": '-m "seed=range({})", or `sqn-ablate … seeds={}`',
    "game": "env=atari_ram env.game={}; also env=atari, from pixels, and env=minatar",
    **dict.fromkeys(("env_id", "env_name", "environment", "task_id"), GYM_ID),
    **dict.fromkeys(
        ("log_dir", "logdir", "output_dir", "save_dir", "hydra.run.dir", "hydra.sweep.dir"), "out={}"
    ),
    "hydra/launcher": "`sqn-ablate --jobs N`, which runs several at a time; also --launcher submitit",
    **dict.fromkeys(("track", "wandb"), "logger=…; `sqn-list logger` shows what there is"),
    "dueling": "head=dueling",
    **dict.fromkeys(("noisy", "noisy_nets"), "layers=noisy"),
    **dict.fromkeys(("per", "prioritized", "prioritized_replay"), "replay=prioritized"),
    **dict.fromkeys(("n_step", "n_steps", "multi_step"), "returns=n_step returns.n={}"),
    **dict.fromkeys(("c51", "categorical", "distributional"), "head=categorical"),
    **dict.fromkeys(("cuda", "gpu"), "device=cuda"),
}
"""What to write for the names that other programs give to settings; ``{}`` stands for the value."""


def hint_for(key: str, value: Any, known: Collection[str]) -> str:
    """What to write instead of a setting that does not exist.

    Args:
        key: its name.
        value: its value, which may be a mapping: ``hydra: {run: {dir: x}}``.
        known: the names of the settings that exist.
    """
    while isinstance(value, dict) and len(value) == 1:
        ((name, value),) = value.items()
        key = f"{key}.{name}"
    if key in FOREIGN_NAMES:
        instead = FOREIGN_NAMES[key]
        if instead == GYM_ID and (atari := for_atari_id(str(value))):
            return atari
        shown = override(key, value).partition("=")[2]
        return "write " + instead.replace("[{}]" if isinstance(value, list) else "{}", shown)
    if key.startswith("hydra"):
        return "recipes are not a Hydra application; `sqn-run --dry-run` prints a resolved recipe"
    return did_you_mean(key.partition(".")[0], known)


def hint_for_part(group: str, name: str, names: Collection[str]) -> str:
    """What to write instead of a part, or a recipe, that does not exist.

    Args:
        group: the slot, ``task`` or ``recipe``.
        name: the part.
        names: those that exist.
    """
    hint = did_you_mean(name, names)
    if group != "env" or not hint.startswith("there are"):
        return hint
    if instead := for_atari_id(name):
        return instead
    if re.fullmatch(r"\w+-v\d+", name):
        return f"write env=gym env.id={name}"
    game = in_snake_case(name)
    return f"{hint}; write a game as env=atari env.game={game}, and an id of Gymnasium as env=gym env.id=…"
