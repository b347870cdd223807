"""Hundreds of mistakes, random with a fixed seed: each is refused before the first step, with its origin.

The intended name is among the suggestions for at least 95 % of the typing errors.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest
from messages import repeated

from sqn_rl import compose
from sqn_rl.errors import RecipeError
from sqn_rl.recipe.catalogue import RECIPE, Catalogue
from sqn_rl.recipe.schema import SLOTS, Run

CATALOGUE = Catalogue()
RNG = random.Random(5)


class Mistake(NamedTuple):
    overrides: tuple[str, ...]
    """The last one is wrong."""
    meant: str | None = None
    """The name to suggest; None if there is no such name."""


def mistyped(name: str) -> str:
    """One letter left out, doubled, swapped with the next, or another one."""
    i = RNG.randrange(len(name) - 1)
    kinds = [
        name[:i] + name[i + 1 :],
        name[: i + 1] + name[i:],
        name[:i] + name[i + 1] + name[i] + name[i + 2 :],
        name[:i] + RNG.choice("aeiou") + name[i + 1 :],
    ]
    return RNG.choice([kind for kind in kinds if kind != name])


def unlike(name: str, among: list[str]) -> str:
    """A typing error that is not by chance another name."""
    return next(typed for typed in iter(lambda: mistyped(name), None) if typed not in among)


def typing_errors() -> Iterator[Mistake]:
    """Of every recipe, part, field and run-level setting that there is."""
    recipes = [name for name in CATALOGUE.names(RECIPE) if len(name) > 3]
    yield from (Mistake((f"recipe={unlike(name, recipes)}",), name) for name in recipes)
    for slot in SLOTS:
        names = CATALOGUE.names(slot.name)
        for name in names:
            if len(name) > 3:
                yield Mistake((f"{slot.name}={unlike(name, names)}",), name)
            own = [
                field
                for field in CATALOGUE.read(slot.name, name).values
                if field not in ("_target_", "defaults")
            ]
            for field in own:
                if len(field) > 3 and name not in ("envpool", "gym"):  # which set no id
                    typed = f"{slot.name}.{unlike(field, own)}=1"
                    yield Mistake((f"{slot.name}={name}", typed), field)
        yield Mistake((f"{unlike(slot.name, [])}=x",), slot.name)
    for setting in fields(Run):
        yield Mistake((f"{unlike(setting.name, [])}=1",), setting.name)


def wrong_values() -> Iterator[Mistake]:
    """Of every run-level setting and every field of the parts of ``sqn`` that is a number."""
    numbers = {"steps", "seed", "num_envs", "update_ratio", "batch_size", "warmup_steps", "gamma", "threads"}
    for name in sorted(numbers):
        yield from (Mistake((f"{name}={bad}",)) for bad in ("many", "-1", "[1]", "{a: 1}", "null"))
    recipe = compose("sqn").recipe
    for slot in SLOTS:
        for field, value in recipe.fields(slot.name).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield from (Mistake((f"{slot.name}.{field}={bad}",)) for bad in ("many", "[1]"))


MISTAKES = [*typing_errors(), *wrong_values()]


class Refused(NamedTuple):
    mistake: Mistake
    error: RecipeError | None
    seconds: float

    @property
    def says_where(self) -> bool:
        """Whether the error names the override to fix."""
        return self.error is not None and self.error.origin == f"command line: {self.mistake.overrides[-1]}"

    @property
    def suggests(self) -> bool:
        """Whether the hint contains the intended name."""
        return self.error is not None and f"`{self.mistake.meant}`" in self.error.hint


def refusal(mistake: Mistake) -> Refused:
    """Compose and check a recipe with a mistake: the error, and the seconds."""
    started, refused = time.process_time(), None
    try:
        compose("sqn", *mistake.overrides).preflight()
    except RecipeError as error:
        refused = error
    return Refused(mistake, refused, time.process_time() - started)


@pytest.fixture(scope="module")
def refusals() -> list[Refused]:
    """The refusal of every mistake."""
    return [refusal(mistake) for mistake in MISTAKES]


def test_there_are_at_least_200_mistakes() -> None:
    assert len(MISTAKES) >= 200


def test_each_mistake_is_refused_with_its_origin_within_2_seconds(refusals: list[Refused]) -> None:
    for refused in refusals:
        assert refused.says_where, refused.mistake
        assert refused.seconds < 2, refused.mistake


def test_no_message_repeats_itself(refusals: list[Refused]) -> None:
    assert [str(each.error) for each in refusals if repeated(str(each.error))] == []


def test_the_intended_name_is_suggested_for_95_percent_of_typing_errors(refusals: list[Refused]) -> None:
    typed = [refused for refused in refusals if refused.mistake.meant]
    missed = [str(each.error) for each in typed if not each.suggests]
    assert len(missed) <= len(typed) / 20, missed


# --- in files ----------------------------------------------------------------------------------------------

GOOD = """# Mine.      sqn-run recipe=mine
defaults: [sqn, {override /head: dueling}, _self_]
gamma: 0.9
loss: {backup: max}
"""

BROKEN: dict[str, tuple[Callable[[str], str], int, str]] = {
    "bracket": (lambda text: text.replace("_self_]", "_self_"), 2, "YAML"),
    "brace": (lambda text: text.replace("max}", "max"), 4, "YAML"),
    "tab": (lambda text: text + "replay:\n\tcapacity: 3\n", 6, "YAML"),
    "colon": (lambda text: text.replace("gamma: 0.9", "gamma 0.9"), 3, "YAML"),
    "twice": (lambda text: text + "gamma: 0.8\n", 5, "gamma"),
    "key": (lambda text: text.replace("gamma", "gama"), 3, "did you mean `gamma`?"),
    "slot": (lambda text: text.replace("loss:", "lose:"), 4, "did you mean `loss`?"),
    "part": (lambda text: text.replace("dueling", "dueing"), 2, "did you mean `dueling`?"),
    "recipe": (lambda text: text.replace("[sqn,", "[sqm,"), 2, "did you mean `sqn`?"),
    "field": (lambda text: text.replace("backup", "backpu"), 4, "did you mean `backup`?"),
    "value": (lambda text: text.replace("max}", "maxi}"), 4, "expected one of"),
    "type": (lambda text: text.replace("0.9", "often"), 3, "gamma"),
    "range": (lambda text: text.replace("0.9", "9"), 3, "gamma"),
    "list": (lambda text: text.replace("{backup: max}", "[max]"), 4, "loss"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_in_a_file_is_found_with_its_line(name: str, tmp_path: Path) -> None:
    file = tmp_path / "recipes" / "mine.yaml"
    file.parent.mkdir()
    change, line, message = BROKEN[name]
    file.write_text(GOOD)
    compose("mine", config_dirs=[tmp_path]).preflight()
    file.write_text(change(GOOD))
    with pytest.raises(RecipeError) as refused:
        compose("mine", config_dirs=[tmp_path]).preflight()
    assert f"mine.yaml:{line}" in str(refused.value)
    assert message in str(refused.value)
    assert repeated(str(refused.value)) == []
