"""Wrong arguments of parts in Python: refused by the argument's name, before anything is built."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import nn

from sqn_rl import Agent, Dense, compose
from sqn_rl.errors import SettingError, SqnError, WiringError
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.recipe.build import Maker


class Listener(Protocol):
    name: str

    def hear(self) -> None: ...


@typed
def listen(
    *,
    count: Count = 1,
    whole: int = 0,
    number: float = 0.0,
    flag: bool = False,
    text: str = "",
    widths: Sequence[Count] = (),
    names: Sequence[str] = (),
    make: Callable[..., Any] = print,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    listener: Listener | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    module: nn.Module | None = None,
    anything: Any = None,
    unchecked=None,
) -> str:
    """A function with every kind of annotation."""
    return "listened"


class Dog:
    name = "Rex"

    def hear(self) -> None: ...


ACCEPTED = {
    "count": [1, np.int64(3), 2**62],
    "whole": [-1, 0, np.int32(3)],
    "number": [1, 1.5, np.float32(2), -3, float("inf")],
    "flag": [True, np.True_],
    "text": ["", "a"],
    "widths": [[], [1, 2], (3,), torch.Size([4])],
    "names": [["a"], ("b", "c")],
    "make": [Dog, print, lambda: None],
    "settings": [None, {}, {"a": 1}],
    "limit": [None, 3],
    "listener": [None, Dog()],
    "dtype": [torch.uint8],
    "device": ["cpu", "cuda:1", torch.device("meta")],
    "module": [None, nn.Identity()],
    "anything": [None, 3, "a", Dog],
    "unchecked": [None, 3, "a", Dog],
}
REFUSED = {
    "count": ([0, -1, True, 1.0, "1", None, [1], 10**30], "a whole number, at least 1"),
    "whole": ([True, 1.5, "1", None, 2**63], "a whole number"),
    "number": ([True, "1", None, [1.0], 1j, 10**400], "a number"),
    "flag": ([0, 1, "no", None], "True or False"),
    "text": ([0, None, ["a"], b"a"], "a text"),
    "widths": ([8, None, "12", [0], [1, "a"], [True], {1: 2}], "a list of whole numbers, at least 1"),
    "names": (["abc", [1], None], "a list of texts"),
    "make": ([None, 3, "print"], "a class or a function"),
    "settings": ([[], "a"], "a dict or null"),
    "limit": (["3", 1.5], "a whole number or null"),
    "listener": ([3, Dog, "Rex"], "a Listener or null"),
    "dtype": (["float32", None, float], "a dtype"),
    "device": (["tpu", 0, None, []], "a device, such as 'cpu'"),
    "module": ([nn.Identity, "x"], "a Module or null"),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_values_of_the_annotated_type_are_accepted(name: str) -> None:
    assert [listen(**{name: value}) for value in ACCEPTED[name]] == ["listened"] * len(ACCEPTED[name])


@pytest.mark.parametrize("name", REFUSED)
def test_values_of_another_type_are_refused_with_what_was_expected(name: str) -> None:
    values, expected = REFUSED[name]
    for value in values:
        with pytest.raises(SettingError) as caught:
            listen(**{name: value})
        assert caught.value.field == name
        assert caught.value.expected.partition(", which")[0].removesuffix(", not the class Dog") == expected


def test_missing_and_unknown_arguments_raise_pythons_type_error() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'volume'"):
        listen(volume=3)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'members'"):
        Dense(3, 4)


def test_a_value_that_is_not_an_instance_of_the_protocol_is_refused() -> None:
    with pytest.raises(SettingError, match=r"expected a Listener or null, which has hear, name, …$"):
        listen(listener=3)
    with pytest.raises(SettingError, match=r"expected a Listener or null, not the class Dog$"):
        listen(listener=Dog)


def test_a_value_with_a_long_repr_is_shown_by_its_type() -> None:
    with pytest.raises(SettingError, match=r"^limit = <ModuleList>: expected a whole number or null$"):
        listen(limit=nn.ModuleList([nn.Identity()]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"replay": None},
            "replay = None: expected a Replay, which has cut, draw, ",
        ),
        ({"loss": "sqn"}, "loss = 'sqn': expected a Loss, which has compute, "),
        ({"optimizer": None}, "optimizer = None: expected a class or a function"),
        ({"compiled": "no"}, "compiled = 'no': expected True or False"),
    ],
)
def test_an_agent_refuses_an_invalid_part_by_its_name(wrong: Mapping[str, Any], message: str) -> None:
    agent = compose("sqn", hidden=[4]).build().agent
    parts = {name: getattr(agent, name) for name in ("actor", "loss", "target_update", "replay")}
    with pytest.raises(SettingError, match=message):
        Agent(**{**parts, "optimizer": torch.optim.Adam, **wrong})


# --- every part of the recipes ------------------------------------------------------------------------------


WRONG = ["a", None, [], {}, -1, 1.5, True, float("nan"), [1, "a"], [0], 0, "1", b"x", 10**30]

WAYS: Mapping[str, Mapping[str, Any]] = {
    "sqn_best": {"hidden": [4]},
    "sqn_rainbow": {"temperature": "annealed", "hidden": [4]},
    "sqn_quantile": {"temperature": "fixed", "hidden": [4]},
    "sqn": {"head": "rescaled", "returns": "retrace", "hidden": [4]},
    "sqn_nstep": {"hidden": [4]},
    "sqn_munchausen": {"env": "minatar", "replay_capacity": 100},
    "sqn_r2d2": {"hidden": [4], "replay_capacity": 1000},
    "rainbow": {"hidden": [4]},
    "discrete_sac": {"hidden": [4]},
    "double_dqn": {"target_update": "periodic", "hidden": [4]},
}


@pytest.fixture(scope="module")
def made() -> dict[Callable[..., Any], dict[str, Any]]:
    """For each class of part, the arguments with which the recipes make it."""
    arguments: dict[Callable[..., Any], dict[str, Any]] = {}

    def record(maker: Maker, *positional: Any, **keywords: Any) -> Any:
        part = make(maker, *positional, **keywords)
        if not positional and maker.slot not in ("env", "collect", "logger"):
            arguments.setdefault(maker.func, {**maker.fields, **maker.injected, **keywords})
        return part

    make = Maker.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Maker, "__call__", record)
        for recipe, overrides in WAYS.items():
            compose(recipe, **overrides).build()
    return arguments


def refusal(make: Callable[..., Any], arguments: Mapping[str, Any]) -> SqnError | None:
    try:
        make(**arguments)
    except SqnError as error:
        return error
    return None


def test_every_part_refuses_most_wrong_values_of_each_argument_and_names_it(
    made: Mapping[Any, Mapping[str, Any]],
) -> None:
    assert len(made) > 25
    for make, arguments in made.items():
        for name in arguments:
            refused = [refusal(make, {**arguments, name: value}) for value in WRONG]
            errors = [error for error in refused if error]
            assert len(errors) > len(WRONG) // 2, f"{make.__name__} accepts nearly anything as {name}"
            unnamed = [error for error in errors if name not in str(error)]
            assert {type(error) for error in unnamed} <= {WiringError}, unnamed
            assert not any("\n" in str(error) for error in errors)
