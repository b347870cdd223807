"""Every two parts of different slots train together, or are refused with a reason, as their YAML declares.

A part declares what it is compatible with by ``# works with slot=part,…``. A covering array has every
compatible pair of parts in at least one recipe; these recipes train. For every other pair there is a recipe
in which nothing else is wrong; it is refused.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import combinations, product
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from sqn_rl import compose
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.schema import SLOTS

Part = tuple[str, str]
"""Slot and name."""
Wiring = dict[str, str]
"""By slot, the name of the part."""
Parts = Mapping[str, Sequence[str]]

CATALOGUE = Catalogue()
NEEDS = {
    ("env", "envpool"): "envpool",
    ("env", "lunarlander"): "Box2D",
    ("env", "minatar"): "minatar",
    ("logger", "tensorboard"): "tensorboard",
}
"""The parts that need an extra, and a module of it."""
ELSEWHERE = {
    *(("collect", "ray"), ("env", "football")),
    *(("logger", name) for name in ("mlflow", "trackio", "wandb")),
}
"""Parts tested elsewhere: slow variants of ``inline`` and ``envpool``, and loggers that may use a network."""
PARTS = {
    slot.name: [
        name
        for name in CATALOGUE.names(slot.name)
        if find_spec(NEEDS.get((slot.name, name), "sqn_rl")) and (slot.name, name) not in ELSEWHERE
    ]
    for slot in SLOTS
}
TINY = [
    *("steps=300", "num_envs=4", "warmup_steps=100", "update_ratio=0.1", "batch_size=8", "hidden=[16]"),
    *(
        "replay_capacity=1000",
        "log_every=100",
        "checkpoint_every=100",
        "checkpoint_keep=9",
        "eval_episodes=1",
    ),
]
BOUNDED = {
    "gym": ["env.id=pairs/Camera-v0", "update_ratio=0.05"],  # all encoders read images
    "envpool": [
        *("env.id=Pong-v5", "env.kwargs={max_episode_steps: 20, img_height: 36, img_width: 36, noop_max: 1}"),
        "update_ratio=0.05",
    ],
    "acrobot": ["env.kwargs.max_episode_steps=50"],
    "lunarlander": ["env.kwargs.max_episode_steps=50"],
    "atari_ram": ["env.max_frames=80"],
    "atari": ["env.max_frames=80", "update_ratio=0.05"],
}


class Camera(gymnasium.Env):
    """Images of noise, for 9 steps."""

    observation_space, action_space = spaces.Box(0, 255, (36, 36, 1), np.uint8), spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps = 0
        return self.observation(), {}

    def observation(self) -> np.ndarray:
        return self.np_random.integers(256, size=(36, 36, 1), dtype=np.uint8)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return self.observation(), float(action), self.steps == 9, False, {}


gymnasium.register("pairs/Camera-v0", Camera)
LEARNED = ("q_net.", "policy_net.", "temperature.parameter")

Fits = Callable[[Part, Part], bool]
Rank = Callable[[Part, Wiring], tuple[int, ...]]


@cache
def fit(one: Part, other: Part) -> bool:
    """Whether neither declares that it does not work with the other."""
    mine, others = (CATALOGUE.read(*part).works_with for part in (one, other))
    return other[1] in mine.get(other[0], [other[1]]) and one[1] in others.get(one[0], [one[1]])


def pairs_of(parts: Parts) -> Iterator[tuple[Part, Part]]:
    """Every two parts of different slots, those of the slots with the most parts first."""
    for slot, other_slot in combinations(sorted(parts, key=lambda slot: -len(parts[slot])), 2):
        yield from product(
            ((slot, name) for name in parts[slot]), ((other_slot, name) for name in parts[other_slot])
        )


def completed(wiring: Wiring, parts: Parts, fits: Fits, rank: Rank = lambda *_: ()) -> Wiring | None:
    """A part for every slot, each fitting all others; those of the highest ``rank`` are tried first."""
    empty = [slot for slot in parts if slot not in wiring]
    if not empty:
        return wiring
    slot = max(empty, key=lambda slot: len(parts[slot]))
    candidates = [(slot, name) for name in parts[slot]]
    candidates = [one for one in candidates if all(fits(one, part) for part in wiring.items())]
    candidates.sort(key=lambda one: rank(one, wiring), reverse=True)
    wholes = (completed({**wiring, slot: name}, parts, fits, rank) for slot, name in candidates)
    return next(filter(None, wholes), None)


def covering(parts: Parts, fits: Fits) -> list[Wiring]:
    """Few wirings in which every two parts that fit each other meet: a covering array, found greedily."""
    missing = dict.fromkeys(frozenset(pair) for pair in pairs_of(parts) if fits(*pair))
    wanted, used = Counter(part for pair in missing for part in pair), Counter[Part]()

    def rank(one: Part, wiring: Wiring) -> tuple[int, ...]:
        gain = sum(frozenset({one, part}) in missing for part in wiring.items())
        return gain, wanted[one], -used[one]

    wirings = []
    while missing:
        first = dict(next(iter(missing)))
        wiring = completed(first, parts, fits, rank)
        assert wiring, f"{first}: they fit, but nothing completes them"
        wirings.append(wiring)
        used.update(wiring.items())
        for pair in map(frozenset, combinations(wiring.items(), 2)):
            if pair in missing:
                del missing[pair]
                wanted.subtract(pair)
    return wirings


WIRINGS = covering(PARTS, fit)
EXCLUDED = [pair for pair in pairs_of(PARTS) if not fit(*pair)]


def overrides(wiring: Wiring) -> list[str]:
    parts = [f"{slot}={name}" for slot, name in wiring.items()]
    rows = ["collect.rows=5", "collect.depth=1"] if wiring["collect"] == "inline" else []
    learns_alpha = wiring["temperature"] in ("learned", "annealed")
    steps = ["temperature.lr=0.01"] if learns_alpha else []  # else steps of SGD may be lost to rounding
    return [*parts, *TINY, *rows, *steps, *BOUNDED.get(wiring["env"], [])]


def shown(wiring: Wiring) -> str:
    return "-".join(wiring[slot.name] for slot in SLOTS)


def test_every_compatible_pair_of_parts_is_in_a_wiring() -> None:
    met = {frozenset(pair) for wiring in WIRINGS for pair in combinations(wiring.items(), 2)}
    every = {frozenset(pair) for pair in pairs_of(PARTS)}
    assert every - met == {frozenset(pair) for pair in EXCLUDED}
    assert not met - every
    assert all(wiring.keys() == PARTS.keys() for wiring in WIRINGS)
    largest, second, *_ = sorted(map(len, PARTS.values()), reverse=True)
    assert largest * second <= len(WIRINGS) < 1.5 * largest * second


@pytest.mark.parametrize("wiring", WIRINGS, ids=shown)
def test_a_wiring_of_compatible_parts_trains(wiring: Wiring, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = compose("sqn", *overrides(wiring), f"out={out}").train()
    updates = 10 if wiring["env"] in ("atari", "envpool", "gym") else 20
    assert [summary[key] for key in ("status", "env_steps", "updates")] == ["done", 300, updates]
    for line in (out / "metrics.jsonl").read_text().splitlines():
        assert all(math.isfinite(value) for value in json.loads(line).values() if value is not None), line
    checkpoints = sorted((out / "checkpoints").glob("*/weights.safetensors"))
    before, after = load_file(checkpoints[0]), load_file(checkpoints[-1])
    learned = [key for key in before if key.startswith(LEARNED)]
    unmoved = [key for key in learned if torch.equal(before[key], after[key])]
    assert len(learned) >= 4
    assert not unmoved


@pytest.mark.parametrize("pair", EXCLUDED, ids=lambda pair: "-".join(map("=".join, pair)))
def test_an_incompatible_pair_of_parts_is_refused_with_a_fix(pair: tuple[Part, Part]) -> None:
    def excused(one: Part, other: Part) -> bool:
        return fit(one, other) or {one, other} == {*pair}

    def further_excused(one: Part, other: Part) -> bool:  # what fits one of them may not fit the other
        return fit(one, other) or one in pair or other in pair

    wiring = completed(dict(pair), PARTS, excused) or completed(dict(pair), PARTS, further_excused)
    assert wiring
    with pytest.raises(RecipeError) as raised:
        compose("sqn", *overrides(wiring)).preflight()
    consumer, part = raised.value.origin.removeprefix("command line: ").split("=")
    assert wiring[consumer] == part
    unfit = [dict(pair) for pair in combinations(wiring.items(), 2) if not fit(*pair)]
    others = {slot for pair in unfit if consumer in pair for slot in pair if slot != consumer}
    fixes = re.findall(r"(\w+)=(\w+)", f"{raised.value.message} {raised.value.hint}")
    assert any(slot in others and name != wiring[slot] for slot, name in fixes), str(raised.value)
    assert len(str(raised.value).splitlines()) <= 2
