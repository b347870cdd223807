"""Action masks: the losses solve a masked MDP exactly, and actions that are not allowed have no influence."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.distributions import Categorical, Quantile
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.rescaling import Rescaled
from sqn_rl.parts.target_update.periodic import Periodic
from sqn_rl.parts.temperature.fixed import FixedTemperature
from sqn_rl.types import Batch, Path

STATES, ACTIONS, GAMMA, ALPHA, NETWORKS, K = 5, 4, 0.8, 0.5, 2, 5
TERMINAL = 4
LIVING = range(TERMINAL)
ALLOWED = [{0, 1, 2, 3}, {1, 3}, {2}, {0, 2, 3}, {0, 1, 2, 3}]
"""The actions that each state allows."""
MASK = torch.tensor([[a in allowed for a in range(ACTIONS)] for allowed in ALLOWED])

rng = np.random.default_rng(0)
P = rng.dirichlet(np.full(STATES, 0.5), size=(STATES, ACTIONS))  # [S, A, S']
R = rng.normal(size=(STATES, ACTIONS))
LOSSES = ["dqn", "double_dqn", "sqn", "munchausen", "discrete_sac"]
for_every_loss = pytest.mark.parametrize("name", LOSSES)


def assert_close(actual: Tensor, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=tolerance, check_dtype=False)


# --- equations ---------------------------------------------------------------------------------------------


def test_a_masked_policy_is_that_of_the_allowed_actions() -> None:
    q_BA = torch.tensor([[0.0, 1e9, math.log(3) * 2]])
    masked_BA = F.masked(q_BA, torch.tensor([[True, False, True]]))
    log_pi_BA = F.log_policy(masked_BA, 2.0)
    assert log_pi_BA.exp()[0].tolist() == pytest.approx([1 / 4, 0, 3 / 4])
    assert log_pi_BA.exp()[0, 1] == 0
    h = math.log(4) - 3 / 4 * math.log(3)
    assert_close(F.entropy(log_pi_BA), [h])
    assert_close(F.soft_value(masked_BA, 2.0), [2 * math.log(4)])
    assert_close(F.expected(masked_BA[None], log_pi_BA), [3 / 4 * 2 * math.log(3)])
    assert_close(F.policy_loss(log_pi_BA, masked_BA, 2.0), -2 * math.log(4))
    assert_close(F.maximum(F.masked(-q_BA, torch.tensor([True, False, True]))[None]), [0])


@pytest.mark.parametrize("alpha", [1e-12, 1e-8, 1e-4, 1.0, 1e4, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_only_allowed_action_is_certain_at_every_temperature(alpha: float, dtype: torch.dtype) -> None:
    q_BA = F.masked(torch.tensor([[9e8, -5.0, 1e9]], dtype=dtype), torch.tensor([[False, True, False]]))
    log_pi_BA = F.log_policy(q_BA, alpha)
    assert log_pi_BA.exp().tolist() == [[0, 1, 0]]
    assert F.entropy(log_pi_BA).tolist() == [0]
    assert F.soft_value(q_BA, alpha).tolist() == [-5]
    assert F.policy_loss(log_pi_BA, q_BA, alpha).item() == 5


def test_without_a_mask_values_are_the_same_tensor() -> None:
    q_BA = torch.randn(2, 3)
    assert F.masked(q_BA, None) is q_BA


# --- a masked MDP ------------------------------------------------------------------------------------------


def solve(value: Callable[[list[float]], float], bonus: Callable[[list[float], int], float]) -> np.ndarray:
    """Q ← R + bonus + γ Σ P V(s'), by hand: V and bonus see the values of the allowed actions only."""
    q = np.zeros((STATES, ACTIONS))
    for _ in range(200):  # 0.8²⁰⁰ = 10⁻¹⁹
        among = [[q[s, a] for a in sorted(allowed)] for s, allowed in enumerate(ALLOWED)]
        new = np.full((STATES, ACTIONS), np.nan)
        for s in LIVING:
            for rank, a in enumerate(sorted(ALLOWED[s])):
                follows = sum(P[s, a, s_next] * value(among[s_next]) for s_next in LIVING)
                new[s, a] = R[s, a] + bonus(among[s], rank) + GAMMA * follows
        q = new
        q[TERMINAL] = 0
    return q


def soft(q: list[float]) -> float:
    return ALPHA * math.log(sum(math.exp(each / ALPHA) for each in q))


def munchausen(q: list[float], rank: int) -> float:
    return 0.9 * max(-1.0, q[rank] - soft(q))  # α log π = Q − V


EXPECTED = {
    "dqn": (max, lambda *_: 0.0),
    "double_dqn": (max, lambda *_: 0.0),
    "sqn": (soft, lambda *_: 0.0),
    "munchausen": (soft, munchausen),
    "discrete_sac": (soft, lambda *_: 0.0),
}


def every_transition() -> Batch:
    """Each (s, a, s') from a living state with an allowed action, weighted by P(s'|s, a)."""
    rows = itertools.product(LIVING, range(ACTIONS), range(STATES))
    s, a, s_next = torch.tensor([row for row in rows if row[1] in ALLOWED[row[0]]]).T
    return Batch(
        observation=s,
        action=a,
        reward=torch.tensor(R)[s, a],
        next_observation=s_next,
        terminated=s_next == TERMINAL,
        discount=torch.full((len(s),), GAMMA),
        place=torch.arange(len(s)),
        weight=torch.tensor(P)[s, a, s_next],
        action_mask=MASK[s],
        next_action_mask=MASK[s_next],
    )


@for_every_loss
@pytest.mark.parametrize("elsewhere", [1e9, -1e9])
def test_every_loss_reaches_the_solution_over_allowed_actions(make_loss, name: str, elsewhere: float) -> None:
    table = torch.randn(NETWORKS, STATES, ACTIONS, generator=torch.Generator().manual_seed(0))
    table = table.where(MASK, elsewhere)
    temperature = FixedTemperature(alpha=ALPHA)
    logits = torch.zeros(STATES, ACTIONS).where(MASK, elsewhere)
    loss = make_loss(name, table, logits=logits, temperature=temperature, gamma=GAMMA)
    batch, target_update = every_transition(), Periodic(loss=loss, every=1)
    for _ in range(200):
        if name == "discrete_sac":  # the optimal policy for these values
            best = loss.q_net.table.detach().amin(0) / ALPHA
            loss.policy_net.table.data[0] = best.where(MASK, elsewhere)
        (gradient,) = torch.autograd.grad(loss.compute(batch).losses["loss_q"], loss.q_net.table)
        assert (gradient[:, ~MASK] == 0).all()
        loss.q_net.table.data -= len(batch.action) / 2 * gradient
        target_update.step()
    expected = torch.tensor(solve(*EXPECTED[name]))
    for learned in loss.q_net.table.detach():
        assert_close(learned[:TERMINAL][MASK[:TERMINAL]], expected[:TERMINAL][MASK[:TERMINAL]], 1e-9)
        assert (learned[~MASK] == elsewhere).all()


# --- actions that are not allowed --------------------------------------------------------------------------

HEADS = {
    "scalar": lambda: None,
    "categorical": lambda: Categorical(v_min=-5.0, v_max=5.0, atoms=K),
    "quantile": lambda: Quantile(quantiles=K, kappa=1.0),
    "rescaled": lambda: Rescaled(epsilon=0.01),
}
BACKUPS = ["expected", "expected_min", "expected_mean", "sampled", "max", "own"]
SOURCES = ["q1", "target_q1", "min", "target_min", "mean", "target_mean"]


def some_batch(generator: torch.Generator, steps: int) -> Batch:
    """Transitions between any states, with allowed actions; of several steps, with a path."""

    def any_of(*shape: int) -> Tensor:
        return torch.randint(STATES, shape, generator=generator)

    def action_in(state: Tensor) -> Tensor:
        return torch.multinomial(MASK[state.flatten()].double(), 1, generator=generator).view_as(state)

    b = 7
    s, s_next = any_of(b), any_of(b, steps)
    path = Path(
        next_observation=s_next,
        next_action=action_in(s_next),
        reward=torch.randn(b, steps, generator=generator),
        discount=GAMMA * (any_of(b, steps) > 0),
        trace=torch.tensor([1.0] * (steps - 1) + [0.0]).expand(b, steps),
        next_action_mask=MASK[s_next],
    )
    return Batch(
        observation=s,
        action=action_in(s),
        reward=path.reward[:, 0],
        next_observation=s_next[:, 0],
        terminated=any_of(b) == 0,
        discount=torch.full((b,), GAMMA),
        place=torch.arange(b),
        path=path if steps > 1 else None,
        action_mask=MASK[s],
        next_action_mask=MASK[s_next[:, 0]],
    )


def results(loss: TDLoss, batch: Batch, elsewhere: Tensor) -> dict[str, Tensor]:
    """All that an update computes, with these values of actions that are not allowed, ``[..., A]``."""
    tables = [loss.q_net.table, loss.target_q_net.table]
    tables += [loss.policy_net.table] if hasattr(loss, "policy_net") else []
    for table in tables:
        mask = MASK.view(1, STATES, ACTIONS, *[1] * (table.dim() - 3))
        filled = elsewhere.view(mask.shape).expand_as(table)
        table.data.copy_(table.data.where(mask, filled))
    loss.generator.manual_seed(0)
    terms = loss.compute(batch)
    learned = {key: each for key, each in loss.named_parameters() if each.requires_grad}
    gradients = torch.autograd.grad(sum(terms.losses.values()), [*learned.values()], allow_unused=True)
    found = {f"gradient of {key}": each for key, each in zip(learned, gradients, strict=True)}
    found |= {"td_error": terms.td_error, "q_mean": terms.q.mean(), **terms.losses}
    if terms.log_pi is not None:
        found |= {"pi": terms.log_pi.exp(), "entropy": F.entropy(terms.log_pi)}
        assert (terms.log_pi.exp()[~batch.action_mask] == 0).all()
    for key in ("gradient of q_net.table", "gradient of policy_net.table"):
        if key in found:
            assert (found[key][:, ~MASK] == 0).all()
    assert all(each.isfinite().all() for each in found.values() if each is not None)
    return found


def extremes() -> st.SearchStrategy[Tensor]:
    value = st.floats(-1e9, 1e9) | st.sampled_from([1e9, -1e9, 0.0])
    return st.lists(value, min_size=STATES * ACTIONS, max_size=STATES * ACTIONS).map(torch.tensor)


@for_every_loss
@pytest.mark.parametrize("steps", [1, 3], ids=["transitions", "paths"])
@settings(max_examples=30)
@given(data=st.data(), head=st.sampled_from([*HEADS]), seed=st.integers(0, 99))
def test_values_of_actions_that_are_not_allowed_influence_nothing(
    make_loss, make_temperature, name: str, steps: int, data: st.DataObject, head: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    chosen: dict[str, Any] = {}
    if name in ("sqn", "munchausen", "discrete_sac"):
        chosen["backup"] = data.draw(st.sampled_from(BACKUPS))
    if name in ("sqn", "munchausen"):
        chosen["policy_source"] = data.draw(st.sampled_from(SOURCES))
    size = (NETWORKS, STATES, ACTIONS, *{"scalar": [], "rescaled": [1]}.get(head, [K]))
    tables = [torch.randn(size, generator=generator) for _ in range(2)]
    temperature = make_temperature(target_entropy=None, target_entropy_fraction=0.5, n_actions=ACTIONS)
    logits = torch.randn(STATES, ACTIONS, generator=generator)
    chosen |= {"logits": logits, "temperature": temperature, "gamma": GAMMA}
    loss = make_loss(name, *tables, distribution=HEADS[head](), **chosen)
    batch = some_batch(generator, steps)
    zero = results(loss, batch, torch.zeros(STATES * ACTIONS))
    other = results(loss, batch, data.draw(extremes()))
    for key, expected in zero.items():
        assert (expected is None and other[key] is None) or torch.equal(expected, other[key]), key


@for_every_loss
@pytest.mark.parametrize("head", [*HEADS])
def test_a_terminal_state_may_have_no_allowed_actions(
    make_loss, make_temperature, name: str, head: str
) -> None:
    """The results are those of a mask that allows all actions: the value of a terminal state is not used."""
    generator = torch.Generator().manual_seed(0)
    size = (NETWORKS, STATES, ACTIONS, *{"scalar": [], "rescaled": [1]}.get(head, [K]))
    tables = [torch.randn(size, generator=generator) for _ in range(2)]
    temperature = make_temperature(target_entropy=None, target_entropy_fraction=0.5, n_actions=ACTIONS)
    logits = torch.randn(STATES, ACTIONS, generator=generator)
    loss = make_loss(
        name, *tables, distribution=HEADS[head](), logits=logits, temperature=temperature, gamma=GAMMA
    )
    batch = some_batch(generator, 1)
    batch = batch._replace(terminated=torch.ones_like(batch.terminated))
    assert batch.next_action_mask is not None
    nothing, all_actions = (torch.full_like(batch.next_action_mask, each) for each in (False, True))
    elsewhere = torch.zeros(STATES * ACTIONS)
    found, expected = (
        results(loss, batch._replace(next_action_mask=mask), elsewhere) for mask in (nothing, all_actions)
    )
    for key in expected:
        assert (expected[key] is None and found[key] is None) or torch.equal(expected[key], found[key]), key
    assert (found["gradient of q_net.table"] != 0).any()


# --- the target entropy ------------------------------------------------------------------------------------


def test_the_target_entropy_fraction_is_of_log_of_the_number_of_allowed_actions(make_temperature) -> None:
    temperature = make_temperature(
        initial=2.0, target_entropy=None, target_entropy_fraction=0.5, n_actions=4, optimise="alpha"
    )
    mask = torch.tensor([[True, True, True, True], [False, True, True, False], [False, False, True, False]])
    entropy_B = torch.tensor([1.0, 0.25, 0.0])
    aimed = 0.5 * (math.log(4) + math.log(2) + 0) / 3
    assert temperature.masked_loss(entropy_B, mask).item() == pytest.approx(2 * (1.25 / 3 - aimed), rel=1e-14)
    assert_close(temperature.masked_loss(entropy_B, mask > -1), temperature.loss(entropy_B))
    absolute = make_temperature(target_entropy=0.5)
    assert torch.equal(absolute.masked_loss(entropy_B, mask), absolute.loss(entropy_B))


def test_a_loss_passes_the_action_mask_to_its_temperature(make_loss, make_temperature) -> None:
    temperature = make_temperature(target_entropy=None, target_entropy_fraction=0.5, n_actions=ACTIONS)
    loss = make_loss("sqn", torch.zeros(NETWORKS, STATES, ACTIONS), temperature=temperature)
    terms = loss.compute(every_transition())
    # of a uniform policy: α (H − H/2)
    entropy = MASK[every_transition().observation].sum(-1).log().mean()
    assert_close(terms.losses["loss_alpha"], 0.75 * entropy / 2)
