"""Checks of observations: every public entry point accepts those of the network and refuses all others."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor

from sqn_rl import (
    MLP,
    BoltzmannActor,
    Dense,
    DiscreteSACLoss,
    EpsilonGreedyActor,
    FixedTemperature,
    GreedyActor,
    ImpalaCNN,
    MinAtarCNN,
    NatureCNN,
    ObservationError,
    PolicyActor,
    QNet,
    SQNLoss,
)

B = 3
MLP_OF_5 = partial(MLP, hidden=[5])
KINDS: dict[str, tuple[Any, tuple[int, ...], torch.dtype]] = {
    "floats": (MLP_OF_5, (4,), torch.float32),
    "bytes": (MLP_OF_5, (6,), torch.uint8),
    "table": (MLP_OF_5, (2, 3), torch.float32),
    "nature": (partial(NatureCNN, hidden=[5]), (1, 36, 36), torch.uint8),
    "impala": (partial(ImpalaCNN, hidden=[5], width=1), (3, 8, 8), torch.uint8),
    "minatar": (partial(MinAtarCNN, hidden=[5]), (4, 10, 10), torch.bool),
}


def actors_of(q_net: QNet, encoder: Any) -> dict[str, Any]:
    alpha = FixedTemperature(alpha=0.5)
    fixed = {"start": 0.5, "end": 0.5, "over": 1.0, "steps": 10}
    return {
        "boltzmann": BoltzmannActor(q_net=q_net, temperature=alpha, policy="min", seed=0),
        "epsilon_greedy": EpsilonGreedyActor(q_net=q_net, policy="q1", seed=0, **fixed),
        "greedy": GreedyActor(q_net=q_net, policy="q1", seed=0),
        "policy": PolicyActor(q_net=q_net, encoder=encoder, layer=Dense, n_actions=3, seed=0),
    }


def entry_points(q_net: QNet, encoder: Any) -> dict[str, Callable[[Tensor], Any]]:
    """Every public way to give a network, its actors and losses observations ``[B, *S]``."""
    actors = actors_of(q_net, encoder)
    where: dict[str, Callable[[Tensor], Any]] = {
        "predict": q_net.predict,
        "values": q_net.values,
        "first": q_net.first,
        "q_net": lambda x: q_net(TensorDict({"observation": x}, batch_size=len(x))),
    }
    for name, actor in actors.items():
        where[f"{name}.act"] = actor.act
        where[f"{name}.act greedy"] = partial(actor.act, greedy=True)
        where[name] = lambda x, actor=actor: actor(TensorDict({"observation": x}, batch_size=len(x)))
        where[f"{name}.scores"], where[f"{name}.mean_scores"] = actor.scores, actor.mean_scores
        for method in {"log_policy", "logits"} & {*dir(actor)}:
            where[f"{name}.{method}"] = getattr(actor, method)
    soft = {"q_net": q_net, "temperature": FixedTemperature(alpha=0.5), "gamma": 0.9, "seed": 0}
    sqn = SQNLoss(**soft, backup="expected", policy_source="q1", backup_entropy=True)
    sac = DiscreteSACLoss(**soft, actor=actors["policy"], backup="expected_min")
    where["loss"] = lambda x: sqn(transitions(x, x))
    where["loss next"] = lambda x: sqn(transitions(good(q_net, len(x)), x))
    where["discrete_sac"] = lambda x: sac(transitions(x, x))
    return where


def transitions(observation: Tensor, following: Tensor) -> TensorDict:
    n = len(observation)
    ends = {"reward": torch.ones(n, 1), "terminated": torch.zeros(n, 1, dtype=torch.bool)}
    now = {"observation": observation, "action": torch.zeros(n, dtype=torch.int64)}
    return TensorDict({**now, "next": TensorDict({"observation": following, **ends}, [n])}, [n])


def good(q_net: QNet, batch: int = B) -> Tensor:
    torch.manual_seed(1)
    numbers = torch.randint(0, 256, (batch, *q_net.observation_shape))
    return numbers.to(q_net.observation_dtype)


def built(kind: str, make_q_net: Callable[..., QNet]) -> tuple[QNet, Any]:
    encoder, shape, dtype = KINDS[kind]
    torch.manual_seed(0)
    return make_q_net(encoder=encoder, observation_shape=shape, observation_dtype=dtype), encoder


EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EVERY_KIND
def test_every_entry_point_accepts_the_shape_and_dtype_of_the_network(make_q_net, kind: str) -> None:
    q_net, encoder = built(kind, make_q_net)
    for entry_point in entry_points(q_net, encoder).values():
        entry_point(good(q_net))


@EVERY_KIND
def test_every_entry_point_refuses_another_dtype_and_other_shapes(make_q_net, kind: str) -> None:
    q_net, encoder = built(kind, make_q_net)
    right = good(q_net)
    other = right.float() if right.dtype == torch.uint8 else right.to(torch.uint8)
    wrong = {
        "bytes for numbers, or numbers for bytes": other,
        "complex": right.to(torch.complex64),
        "one element more": torch.cat([right, right[..., :1]], -1),
        "a batch of batches": right.new_zeros(2, 5, *right.shape[1:]),
        "transposed": right.new_zeros(B, *reversed(right.shape[1:]), 1),
    }
    modules = ("q_net", "loss", "loss next", "discrete_sac", *actors_of(q_net, encoder))  # of any batch shape
    taken = [
        (name, what)
        for name, entry_point in entry_points(q_net, encoder).items()
        for what, observation in wrong.items()
        if not (what == "a batch of batches" and name in modules) and not refuses(entry_point, observation)
    ]
    assert taken == []


def refuses(entry_point: Callable[[Tensor], Any], observation: Tensor) -> bool:
    try:
        entry_point(observation)
    except ObservationError:
        return True
    return False


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("bytes", torch.zeros(3, 6), "uint8 [B, 6], given float32 [3, 6]\n  give it the bytes as they are"),
        ("floats", torch.zeros(3, 4).byte(), "float32 [B, 4], given uint8 [3, 4]\n  observation.float(); or"),
        ("floats", torch.zeros(4), "expected float32 [B, 4], given float32 [4]\n  add the batch's dimension"),
        ("floats", torch.zeros(2, 3, 4), "[2, 3, 4]\n  make it one batch: observation.reshape(-1, 4)"),
        ("floats", torch.zeros(3, 2, 2), "[3, 2, 2]\n  reshape it: observation.reshape(-1, 4)"),
        ("table", torch.zeros(3, 6), "expected float32 [B, 2, 3], given float32 [3, 6]\n  reshape it: "),
        ("floats", torch.zeros(3, 5), "given float32 [3, 5]\n  give it the observations of the environment"),
        ("floats", torch.zeros(3, 4) * 1j, "given complex64 [3, 4]\n  give it real numbers"),
        ("floats", np.zeros((3, 4)), "given float64 [3, 4]\n  make it a tensor: torch.as_tensor(array)"),
        ("floats", [0.0] * 4, "expected float32 [B, 4], given list\n  make it a tensor"),
    ],
)
def test_a_refusal_says_what_was_expected_what_was_given_and_how_to_fix_it(
    make_q_net, kind: str, given: Any, message: str
) -> None:
    q_net, _ = built(kind, make_q_net)
    with pytest.raises(ObservationError) as refusal:
        q_net.values(given)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.int64, torch.int8, torch.bool], ids=str
)
def test_a_float_network_accepts_equal_numbers_of_other_dtypes(make_q_net, dtype: torch.dtype) -> None:
    q_net, _ = built("floats", make_q_net)
    numbers = torch.randint(0, 2, (B, 4))
    assert torch.equal(q_net.values(numbers.to(dtype)), q_net.values(numbers.float()))


@EVERY_KIND
def test_act_accepts_arrays_and_single_observations(make_q_net, kind: str) -> None:
    q_net, encoder = built(kind, make_q_net)
    observation = good(q_net)
    for actor in actors_of(q_net, encoder).values():
        expected = actor.act(observation, greedy=True)
        array = observation.numpy()
        array.flags.writeable = False
        for batch in (array, np.asfortranarray(array), array[::-1][::-1], observation):
            assert torch.equal(actor.act(batch, greedy=True), expected)
        for i in range(B):
            for one in (observation[i], array[i]):
                action = actor.act(one, greedy=True)
                assert (action.shape, action.dtype, int(action)) == ((), torch.int64, int(expected[i]))


def test_act_accepts_lists_and_arrays_of_other_numeric_dtypes(make_q_net) -> None:
    q_net, encoder = built("floats", make_q_net)
    actor, numbers = actors_of(q_net, encoder)["greedy"], np.array([1, 0, 2, 1])
    expected = actor.act(torch.as_tensor(numbers).float())
    for dtype in (np.int64, np.int16, np.float64, np.float16):
        assert torch.equal(actor.act(numbers.astype(dtype)), expected)
    assert torch.equal(actor.act(numbers.tolist()), expected)


@pytest.mark.parametrize("given", [{"a": 1}, "left", None, np.zeros(4, np.uint8), np.zeros((4, 3))], ids=repr)
def test_act_refuses_an_invalid_observation(make_q_net, given: Any) -> None:
    q_net, encoder = built("floats", make_q_net)
    with pytest.raises(ObservationError, match=r"expected float32 \[B, 4\], given "):
        actors_of(q_net, encoder)["greedy"].act(given)


@pytest.mark.parametrize("kind", ["floats", "bytes"])
def test_a_compiled_network_returns_the_same_values_and_refuses_a_wrong_shape(make_q_net, kind: str) -> None:
    q_net, _ = built(kind, make_q_net)
    whole = torch.compile(q_net.values, fullgraph=True, backend="eager")
    assert torch.equal(whole(good(q_net)), q_net.values(good(q_net)))
    with pytest.raises(Exception, match="expected"):
        whole(good(q_net)[:, 1:])
