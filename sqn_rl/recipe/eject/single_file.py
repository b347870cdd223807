"""From a recipe to one readable file of PyTorch and Gymnasium that trains the same agent."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from sqn_rl.errors import RecipeError
from sqn_rl.parts.env.memory.tasks import NAMESPACE
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import OPTIMIZERS
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.provenance import Values

SUPPORTED: Mapping[str, Mapping[str, str]] = {
    "env": {"GymEnv": "gym", "AtariRamEnv": "atari_ram", "MinAtarEnv": "minatar"},
    "collect": {"LocalCollect": "local"},
    "layers": {"Dense": "dense"},
    "encoder": {"MLP": "mlp", "MinAtarCNN": "minatar_cnn"},
    "head": {"LinearHead": "linear", "DuelingHead": "dueling"},
    "q_net": {"QNet": "q_net"},
    "temperature": {
        "FixedTemperature": "fixed",
        "LearnedTemperature": "learned",
        "AnnealedTemperature": "annealed",
        "no_temperature": "none",
    },
    "actor": {"BoltzmannActor": "boltzmann", "EpsilonGreedyActor": "epsilon_greedy", "GreedyActor": "greedy"},
    "loss": {
        "SQNLoss": "sqn",
        "MunchausenLoss": "munchausen",
        "DQNLoss": "dqn",
        "DoubleDQNLoss": "double_dqn",
    },
    "target_update": {"Polyak": "polyak", "Periodic": "periodic"},
    "returns": {"OneStep": "one_step", "NStep": "n_step", "TreeBackup": "tree_backup"},
    "replay": {"UniformReplay": "uniform", "PrioritizedReplay": "prioritized"},
}
"""By slot, the classes of sqn_rl that the template has, and what its conditions call them."""

PATH_BACKUPS = ("expected", "expected_min", "expected_mean", "own")
"""Those of which the template has a tree backup."""

REDUCED = {"q1": "[0]", "min": ".amin(0)", "mean": ".mean(0)"}
"""From ``[N, B, A]`` to the values of a policy, ``[B, A]``."""

KEYWORDS = {
    "sticky_actions": "repeat_action_probability",
    "frame_skip": "frameskip",
    "sticky_action_prob": "sticky_action_prob",
    "difficulty_ramping": "difficulty_ramping",
    "max_episode_steps": "max_episode_steps",
}
"""What Gymnasium's Atari and MinAtar environments call the fields of ours."""


def eject(recipe: Recipe, arguments: str) -> str:
    """One file of PyTorch and Gymnasium that trains the recipe's agent.

    Args:
        recipe: composed, and checked by :func:`~sqn_rl.recipe.preflight.preflight`.
        arguments: of the command that composed it, for the file's docstring.

    Raises:
        RecipeError: the file cannot have a part or a setting of the recipe.
    """
    parts = {slot: _part(recipe, slot) for slot in SUPPORTED}
    _require_settings(recipe)
    values, conditions = _values(recipe, parts, arguments)
    lines = _selected(Path(__file__).with_name("template.txt").read_text(encoding="utf-8"), conditions)
    filled = Template("\n".join(lines)).substitute(values)
    return f"{filled}\n"


def _part(recipe: Recipe, slot: str) -> str:
    """What the template calls the part in a slot; refuses a part that it does not have."""
    module, _, name = recipe.config[slot][TARGET].rpartition(".")
    ours = str(recipe.config[slot].get("id", "")).startswith(NAMESPACE)  # which a file without us cannot make
    if module != "sqn_rl" or name not in SUPPORTED[slot] or ours:
        hint = f"it writes {slot}={','.join(SUPPORTED[slot].values())}"
        raise RecipeError(
            f"`sqn-eject` writes no {slot}={recipe.part(slot)}", recipe.origin(slot), hint, slot
        )
    return SUPPORTED[slot][name]


def _require_settings(recipe: Recipe) -> None:
    """Refuse settings that change the agent and that the template does not have."""
    refused = {"precision": "bf16", "env.life_loss": True}
    for key, value in refused.items():
        slot, _, field = key.rpartition(".")
        if (recipe.config[slot] if slot else recipe.config).get(field) == value:
            message, subject = "`sqn-eject` does not write this", f"{key} = {value!r}"
            raise RecipeError(message, recipe.origin(key), "leave it out", subject)
    backup = recipe.config["loss"].get("backup")
    if recipe.part("returns") == "tree_backup" and backup not in PATH_BACKUPS:
        message, hint = (
            "`sqn-eject` writes no such tree backup",
            f"it writes loss.backup={','.join(PATH_BACKUPS)}",
        )
        raise RecipeError(message, recipe.origin("loss.backup" if backup else "loss"), hint, "loss")


def _values(
    recipe: Recipe, parts: Mapping[str, str], arguments: str
) -> tuple[dict[str, str], dict[str, str]]:
    """What the template's ``$names`` stand for, and the values of its conditions."""
    run, config = recipe.run, recipe.config
    values = {name: _literal(value) for name, value in vars(run).items()}
    for slot in config.keys() - vars(run).keys():
        values |= {f"{slot}_{name}": _literal(value) for name, value in recipe.fields(slot).items()}
    env, conditions = _env(recipe), dict(parts)
    loss, temperature, policy = config["loss"], config["temperature"], config["actor"].get("policy")
    source = loss.get("policy_source", "q1")
    learned = parts["temperature"] in ("learned", "annealed")
    fraction = temperature.get("target_entropy_fraction")
    soft_returns = bool(config["returns"].get("soft"))
    conditions |= {
        "evaluates": _flag(run.evaluates_between),
        "shared": _flag(config["q_net"]["shared_encoder"]),
        "optimise": temperature.get("optimise", ""),
        "relative": _flag(fraction is not None),
        "soft": _flag(parts["loss"] in ("sqn", "munchausen") or learned or parts["actor"] == "boltzmann"),
        "soft_returns": _flag(soft_returns),
        "source": source.partition("_")[0],
        "backup": loss.get("backup", ""),
        "backup_entropy": _flag(loss.get("backup_entropy", False)),
        "scaling": env.pop("scaling"),
    }
    own = parts["temperature"] == "annealed" or fraction is not None
    prioritized = parts["replay"] == "prioritized"
    n_step, tree = (parts["returns"] == each for each in ("n_step", "tree_backup"))
    optimizer, lr = _optimizer(recipe)
    values |= env | {
        "title": _in_docstring(recipe.title),
        "arguments": _in_docstring(arguments),
        "eval_max_steps": values["eval_max_steps"] if run.eval_max_steps else env["time_limit"],
        "target_entropy": values.get("temperature_target_entropy", "0")
        if fraction is None
        else f"{fraction!r}  # of log A:",
        "target_entropy_name": "self.target_entropy" if own else "TARGET_ENTROPY",
        "optimizer": optimizer,
        "optimizer_lr": lr,
        "no_decay": ', "weight_decay": 0.0' if "weight_decay" in config["optimizer"] else "",
        "shared_note": ", and one encoder" if config["q_net"]["shared_encoder"] else "",
        "n_step_note": ": the discounted sum of m steps" if n_step else "",
        "power": "^m" if n_step else "",
        "next_observation": "next_observation" if tree else "batch.next_observation",
        "weight_note": "" if prioritized else "; here all are 1",
        "own_note": ", of each network its own: [N, B]" if loss.get("backup") == "own" else "",
        "sampled_note": "by their TD errors" if prioritized else "uniformly",
        "td_error_note": "largest" if config["replay"].get("td_error") == "max" else "mean",
        "replay_td_error_name": config["replay"].get("td_error", ""),
        "replay_arguments": ", entropy_bonus" if soft_returns else "",
        "replay_values": ", agent.entropy_bonus" if soft_returns else "",
        "acting_q": REDUCED[policy],
        "source_q": REDUCED[source.removeprefix("target_")],
        "entropy_q": REDUCED["mean" if source.endswith("mean") else "q1"],
        "learned_reward": "np.sign(reward)" if config["env"].get("clip_reward") else "reward",
    }
    return values, conditions


def _env(recipe: Recipe) -> dict[str, str]:
    """What the template says of the environment, part of it as the environment itself says it."""
    from sqn_rl.parts.env.base import closing_env
    from sqn_rl.training.evaluation import MAX_STEPS

    with closing_env(recipe.build(last="env", num_envs=1)["env"]) as env:
        env.begin()
        if env.action_mask is not None or env.actions_outside(np.zeros(1, np.int64)).ndim > 1:
            message = "`sqn-eject` writes no action masks, and only Discrete actions"
            raise RecipeError(message, recipe.origin("env"), "", "env")
        if env.image_note or env.frame_stack > 1:
            message = "`sqn-eject` writes no images of env=gym, and no stacks of observations"
            raise RecipeError(message, recipe.origin("env"), "", "env")
        dtype = str(env.observation_dtype).removeprefix("torch.")
        values = {
            "env_name": _in_docstring(env.name),
            "first_action": f" + {env.first_action}" if env.first_action else "",
            "observation_dtype": "bool" if dtype == "bool" else f"np.{dtype}",
            "time_limit": repr(env.max_steps or MAX_STEPS),
            "scaling": "bytes" if dtype == "uint8" else "none",
        }
        if env.observation_scaling is not None:
            shift, scale = (each.ravel().tolist() for each in env.observation_scaling)
            values |= {"scaling": "bounds", "shift": repr(shift), "scale": repr(scale)}
    return values | _made(recipe.fields("env"))


def _made(fields: Values) -> dict[str, str]:
    """The lines that make an environment and its wrappers, in Gymnasium's names."""
    from sqn_rl.parts.env.opening import wrapper_arguments

    if "game" not in fields:
        id_, kwargs = fields["id"], fields.get("kwargs", {})
    else:
        name = fields["game"].title().replace("_", "")
        id_ = (
            f"MinAtar/{name}-v{fields['minimal_actions']:d}"
            if "minimal_actions" in fields
            else f"ALE/{name}-v5"
        )
        kwargs = {KEYWORDS[name]: value for name, value in fields.items() if name in KEYWORDS}
        if "max_frames" in fields:
            kwargs |= {"obs_type": "ram", "max_num_frames_per_episode": fields["max_frames"] or 0}
    lines = [_call("gym.make", _literal(id_), kwargs | {"disable_env_checker": True})]
    for wrapper in fields.get("wrappers", []):
        given = {name: wrapper_arguments(arguments) for name, arguments in wrapper.items()}
        lines += [_call(f"gym.wrappers.{name}", "env", arguments) for name, arguments in given.items()]
    return {"env_id": _literal(id_), "env_made": "\n    ".join(lines)}


def _call(function: str, first: str, keywords: Values) -> str:
    """``env = function(first, name=value, …)``, on one line or, if that is long, on a line for each."""
    plain = {name: value for name, value in keywords.items() if name.isidentifier()}
    arguments = [first, *(f"{name}={_literal(value)}" for name, value in plain.items())]
    if others := {name: value for name, value in keywords.items() if name not in plain}:
        arguments.append(f"**{others!a}")
    if len(", ".join(arguments)) < 80 - len(function):
        return f"env = {function}({', '.join(arguments)})"
    return "\n        ".join([f"env = {function}(", *(f"{each}," for each in arguments)]) + "\n    )"


def _optimizer(recipe: Recipe) -> tuple[str, str]:
    """The call that makes the optimizer, and the learning rate."""
    module, _, name = recipe.config["optimizer"][TARGET].rpartition(".")
    fields = recipe.fields("optimizer")
    if (module, name) != ("sqn_rl", "Adam") and module != OPTIMIZERS:
        message, hint = f"`sqn-eject` writes no optimizer={name}", "it writes Adam and those of torch.optim"
        raise RecipeError(message, recipe.origin("optimizer"), hint, "optimizer")
    if "lr" not in fields:
        raise RecipeError(
            "`sqn-eject` writes the learning rate, which is not set", recipe.origin("optimizer")
        )
    others = "".join(f", {key}={_literal(value)}" for key, value in fields.items() if key != "lr")
    return f"torch.optim.{name}(groups, lr=LR{others})", repr(fields["lr"])


def _literal(value: Any) -> str:
    """A value as Python source in ASCII, a text in double quotes."""
    if not isinstance(value, str):
        return ascii(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    if character == '"':
        return '\\"'
    return character.encode("unicode_escape").decode()


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _flag(value: bool) -> str:
    return "yes" if value else "no"


def _selected(template: str, conditions: Mapping[str, str]) -> Iterator[str]:
    """The lines of the template whose conditions hold.

    ``#: if loss=sqn,munchausen`` begins lines for one of these values, ``#: else`` those for all others, and
    ``#: end`` ends them; they nest.
    """
    holds: list[bool] = []
    for line in template.rstrip("\n").split("\n"):
        match re.findall(r"[^\s=]+", line) if line.startswith("#:") else []:
            case ["#:", "if", name, values]:
                holds.append(conditions[name] in values.split(","))
            case ["#:", "else"]:
                holds[-1] = not holds[-1]
            case ["#:", "end"]:
                holds.pop()
            case _ if all(holds):
                yield line


def supported() -> Iterable[str]:
    """What the file can have, as ``slot=part,part``."""
    return (f"{slot}={','.join(names.values())}" for slot, names in SUPPORTED.items() if len(names) > 1)
