"""Write one readable file of PyTorch and Gymnasium that trains the agent of a recipe."""

import re
from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from keyword import iskeyword
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
from sqn_rl.types import dtype_name

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
"""By slot, the classes of sqn_rl that the template supports, and their names in its conditions."""

PATH_BACKUPS = ("expected", "expected_min", "expected_mean", "own")
"""The values of ``loss.backup`` for which the template has a tree backup."""

REDUCED = {"q1": "[0]", "min": ".amin(0)", "mean": ".mean(0)"}
"""From ``[N, B, A]`` to the values of a policy, ``[B, A]``."""

KEYWORDS = {
    "sticky_actions": "repeat_action_probability",
    "frame_skip": "frameskip",
    "sticky_action_prob": "sticky_action_prob",
    "difficulty_ramping": "difficulty_ramping",
    "max_episode_steps": "max_episode_steps",
}
"""The names of our fields in Gymnasium's Atari and MinAtar environments."""


def eject(recipe: Recipe, arguments: str) -> str:
    """One file of PyTorch and Gymnasium that trains the recipe's agent.

    Args:
        recipe: a recipe that was composed, and checked by :func:`~sqn_rl.recipe.preflight.preflight`.
        arguments: arguments of the command that composed it, for the file's docstring.

    Raises:
        RecipeError: the template does not support a part or a setting of the recipe.
    """
    parts = {slot: _part(recipe, slot) for slot in SUPPORTED}
    _require_settings(recipe)
    env = _env(recipe)
    conditions = _conditions(recipe, parts, env["scaling"])
    values = _values(recipe, parts, env, arguments)
    lines = _selected(Path(__file__).with_name("template.txt").read_text(encoding="utf-8"), conditions)
    filled = Template("\n".join(lines)).substitute(values)
    return f"{filled}\n"


def _part(recipe: Recipe, slot: str) -> str:
    """The template's name for the part in a slot; refuses a part that it does not support."""
    module, _, name = recipe.config[slot][TARGET].rpartition(".")
    needs_sqn_rl = str(recipe.config[slot].get("id", "")).startswith(NAMESPACE)
    if module != "sqn_rl" or name not in SUPPORTED[slot] or needs_sqn_rl:
        hint = f"it writes {slot}={','.join(SUPPORTED[slot].values())}"
        raise RecipeError(
            f"`sqn-eject` writes no {slot}={recipe.part(slot)}", recipe.origin(slot), hint, slot
        )
    return SUPPORTED[slot][name]


def _require_settings(recipe: Recipe) -> None:
    """Refuse settings that change the agent and that the template does not support."""
    refused = {"precision": "bf16", "env.life_loss": True}
    for key, value in refused.items():
        slot, _, field = key.rpartition(".")
        if (recipe.config[slot] if slot else recipe.config).get(field) == value:
            message, subject = "`sqn-eject` does not write this", f"{key} = {value!r}"
            raise RecipeError(message, recipe.origin(key), "leave it out", subject)
    backup = recipe.config["loss"].get("backup")
    if recipe.part("returns") == "tree_backup" and backup not in PATH_BACKUPS:
        hint = f"it writes loss.backup={','.join(PATH_BACKUPS)}"
        origin = recipe.origin("loss.backup" if backup else "loss")
        raise RecipeError("`sqn-eject` writes no such tree backup", origin, hint, "loss")


def _conditions(recipe: Recipe, parts: Mapping[str, str], scaling: str) -> dict[str, str]:
    """The values of the template's conditions."""
    config, loss = recipe.config, recipe.config["loss"]
    has_target_entropy = parts["temperature"] in ("learned", "annealed")
    is_soft = parts["loss"] in ("sqn", "munchausen") or has_target_entropy or parts["actor"] == "boltzmann"
    return dict(parts) | {
        "evaluates": _yes_or_no(recipe.run.evaluates_between),
        "shared": _yes_or_no(config["q_net"]["shared_encoder"]),
        "optimise": config["temperature"].get("optimise", ""),
        "relative": _yes_or_no(config["temperature"].get("target_entropy_fraction") is not None),
        "soft": _yes_or_no(is_soft),
        "soft_returns": _yes_or_no(_has_soft_returns(recipe)),
        "source": _policy_source(recipe).partition("_")[0],
        "backup": loss.get("backup", ""),
        "backup_entropy": _yes_or_no(loss.get("backup_entropy", False)),
        "scaling": scaling,
    }


def _has_soft_returns(recipe: Recipe) -> bool:
    return bool(recipe.config["returns"].get("soft"))


def _policy_source(recipe: Recipe) -> str:
    return str(recipe.config["loss"].get("policy_source", "q1"))


def _values(
    recipe: Recipe, parts: Mapping[str, str], env: Mapping[str, str], arguments: str
) -> dict[str, str]:
    """The texts that the template's ``$names`` stand for."""
    run, config = recipe.run, recipe.config
    values = {name: _literal(value) for name, value in vars(run).items()}
    for slot in config.keys() - vars(run).keys():
        values |= {f"{slot}_{name}": _literal(value) for name, value in recipe.fields(slot).items()}
    time_limit = values["eval_max_steps"] if run.eval_max_steps else env["time_limit"]
    optimizer, lr = _optimizer(recipe)
    return {
        **values,
        **env,
        **_target_entropy(recipe, parts, values),
        **_notes(recipe, parts),
        **_value_expressions(recipe),
        "title": _in_docstring(recipe.title),
        "arguments": _in_docstring(arguments),
        "eval_max_steps": time_limit,
        "optimizer": optimizer,
        "optimizer_lr": lr,
        "next_observation": f"{'' if parts['returns'] == 'tree_backup' else 'batch.'}next_observation",
        "learned_reward": "np.sign(reward)" if config["env"].get("clip_reward") else "reward",
    }


def _target_entropy(recipe: Recipe, parts: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """The target entropy, and the name by which the agent reads it."""
    fraction = recipe.config["temperature"].get("target_entropy_fraction")
    changes = fraction is not None or parts["temperature"] == "annealed"
    number = values.get("temperature_target_entropy", "0")
    return {
        "target_entropy": number if fraction is None else f"{fraction!r}  # of log A:",
        "target_entropy_name": "self.target_entropy" if changes else "TARGET_ENTROPY",
    }


def _notes(recipe: Recipe, parts: Mapping[str, str]) -> dict[str, str]:
    """The parts of comments and docstrings that depend on the recipe."""
    config, n_step = recipe.config, parts["returns"] == "n_step"
    prioritized = parts["replay"] == "prioritized"
    return {
        "shared_note": ", and one encoder" if config["q_net"]["shared_encoder"] else "",
        "n_step_note": ": the discounted sum of m steps" if n_step else "",
        "power": "^m" if n_step else "",
        "weight_note": "" if prioritized else "; here all are 1",
        "own_note": ", of each network its own: [N, B]" if config["loss"].get("backup") == "own" else "",
        "sampled_note": "by their TD errors" if prioritized else "uniformly",
        "td_error_note": "largest" if config["replay"].get("td_error") == "max" else "mean",
    }


def _value_expressions(recipe: Recipe) -> dict[str, str]:
    """The expressions that reduce Q-values, and what the optimizer and the replay take besides."""
    config, source, soft_returns = recipe.config, _policy_source(recipe), _has_soft_returns(recipe)
    return {
        "no_decay": ', "weight_decay": 0.0' if _decays(recipe) else "",
        "replay_td_error_name": config["replay"].get("td_error", ""),
        "replay_arguments": ", entropy_bonus" if soft_returns else "",
        "replay_values": ", agent.entropy_bonus" if soft_returns else "",
        "acting_q": REDUCED[config["actor"].get("policy")],
        "source_q": REDUCED[source.removeprefix("target_")],
        "entropy_q": REDUCED["mean" if source.endswith("mean") else "q1"],
    }


def _decays(recipe: Recipe) -> bool:
    """Whether the optimizer decays weights, as it is set or by its default; α has no decay."""
    make = recipe.catalogue.resolve("optimizer", recipe.config["optimizer"][TARGET])
    parameter = signature(make).parameters.get("weight_decay")
    default = 0 if parameter is None or parameter.default is parameter.empty else parameter.default
    return bool(recipe.config["optimizer"].get("weight_decay", default))


def _env(recipe: Recipe) -> dict[str, str]:
    """The template's values for the environment, some of them read from the environment itself."""
    from sqn_rl.parts.env.opening import closing_env
    from sqn_rl.training.evaluation import MAX_STEPS

    with closing_env(recipe.build(last="env", num_envs=1)["env"]) as env:
        env.begin()
        if env.action_mask is not None or env.actions_outside(np.zeros(1, np.int64)).ndim > 1:
            message = "`sqn-eject` writes no action masks, and only Discrete actions"
            raise RecipeError(message, recipe.origin("env"), "", "env")
        if env.image_note or env.frame_stack > 1:
            message = "`sqn-eject` writes no images of env=gym, and no stacks of observations"
            raise RecipeError(message, recipe.origin("env"), "", "env")
        dtype = dtype_name(env.observation_dtype)
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
    return values | _env_lines(recipe.fields("env"))


def _env_lines(fields: Values) -> dict[str, str]:
    """The id of an environment, and the lines that make it and its wrappers, in Gymnasium's names."""
    from sqn_rl.parts.env.opening import wrapper_arguments

    env_id, kwargs = _game(fields) if "game" in fields else (fields["id"], fields.get("kwargs", {}))
    lines = [_call("gym.make", _literal(env_id), kwargs | {"disable_env_checker": True})]
    for wrapper in fields.get("wrappers", []):
        given = {name: wrapper_arguments(arguments) for name, arguments in wrapper.items()}
        lines += [_call(f"gym.wrappers.{name}", "env", arguments) for name, arguments in given.items()]
    return {"env_id": _literal(env_id), "env_made": "\n    ".join(lines)}


def _game(fields: Values) -> tuple[str, Values]:
    """Gymnasium's id of an Atari or MinAtar game, and the keywords that it takes."""
    name = fields["game"].title().replace("_", "")
    kwargs = {KEYWORDS[field]: value for field, value in fields.items() if field in KEYWORDS}
    if "max_frames" in fields:
        kwargs |= {"obs_type": "ram", "max_num_frames_per_episode": fields["max_frames"] or 0}
    if "minimal_actions" in fields:
        return f"MinAtar/{name}-v{fields['minimal_actions']:d}", kwargs
    return f"ALE/{name}-v5", kwargs


def _is_name(text: str) -> bool:
    return text.isidentifier() and not iskeyword(text)


def _call(function: str, first: str, keywords: Values) -> str:
    """``env = function(first, name=value, …)``, on one line if it fits, else with one argument per line."""
    plain = {name: value for name, value in keywords.items() if _is_name(name)}
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
    """A value as Python source in ASCII, with texts in double quotes."""
    if not isinstance(value, str):
        return ascii(value)
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    """A character as it is written between double quotes, in ASCII."""
    if character == '"':
        return '\\"'
    return character.encode("unicode_escape").decode()


def _in_docstring(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _yes_or_no(value: bool) -> str:
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
    """The parts that the template supports, as ``slot=part,part``; of ``env`` also the tasks of Gymnasium."""
    parts: dict[str, Mapping[str, str]] = {
        **SUPPORTED,
        "env": {**SUPPORTED["env"], "": "cartpole,acrobot,lunarlander"},
        "q_net": {"": "single,twin,twin_shared"},
    }
    return (f"{slot}={','.join(names.values())}" for slot, names in parts.items())
