"""Categorical returns (C51) against the projection loop of Bellemare et al. 2017, and worked by hand."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.parts.distributions import Categorical
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
LN2 = math.log(2)


def tensor(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# --- the projection ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("atom", "wanted"),
    [
        (-1, [1, 0, 0]),  # on an atom
        (0, [0, 1, 0]),
        (1, [0, 0, 1]),
        (0.25, [0, 3 / 4, 1 / 4]),  # between two
        (-0.5, [1 / 2, 1 / 2, 0]),
        (-7, [1, 0, 0]),  # beyond the ends
        (1.5, [0, 0, 1]),
    ],
)
def test_projection_splits_the_mass_of_an_atom_between_its_neighbours(
    atom: float, wanted: list[float]
) -> None:
    one = F.project(tensor([1]), tensor([atom]), tensor(-1, 0, 1))
    assert one.tolist() == [wanted]


def test_projection_adds_up_the_mass_of_all_atoms() -> None:
    # 1/2 at −1/4 → 1/8 at −1, 3/8 at 0;  1/4 at 1/2 → 1/8 at 0, 1/8 at 1;  1/4 beyond 1
    projected = F.project(tensor([1 / 2, 1 / 4, 1 / 4]), tensor([-0.25, 0.5, 3]), tensor(-1, 0, 1))
    assert projected.tolist() == [[1 / 8, 1 / 2, 3 / 8]]


def bellemare(probability: list[float], atom: list[float], low: float, high: float, k: int) -> np.ndarray:
    """Algorithm 1 of Bellemare et al. 2017, in a loop over atoms."""
    m, spacing = np.zeros(k), (high - low) / (k - 1)
    for p, z in zip(probability, atom, strict=True):
        b = (min(max(z, low), high) - low) / spacing
        lower, upper = min(math.floor(b), k - 1), min(math.ceil(b), k - 1)
        m[lower] += p * (upper - b)
        m[upper] += p * (b - lower)
        if lower == upper:  # the algorithm as printed loses this mass
            m[lower] += p
    return m


@given(st.data(), st.integers(2, 9), st.integers(1, 9), st.floats(-5, 5), st.floats(0.5, 10))
def test_projection_equals_the_loop_of_the_paper_and_keeps_mass_and_mean(data, k, n, low, width) -> None:
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=n, max_size=n))
    atom = data.draw(st.lists(st.floats(-20, 20), min_size=n, max_size=n))
    probability = [w / sum(weights) for w in weights]
    support = torch.linspace(low, low + width, k)
    projected_BK = F.project(tensor(probability), tensor(atom), support)
    np.testing.assert_allclose(
        projected_BK[0].numpy(), bellemare(probability, atom, low, low + width, k), rtol=0, atol=1e-12
    )
    assert_close(projected_BK.sum(), tensor(1)[0])
    inside = [min(max(z, low), low + width) for z in atom]
    assert_close(projected_BK[0] @ support, torch.tensor(np.dot(probability, inside)))


def test_projection_of_float64_atoms_with_float32_probabilities_is_float32() -> None:
    probability, support = (torch.tensor(each, dtype=torch.float32) for each in ([[0.25, 0.75]], [0.0, 1, 2]))
    projected = F.project(probability, torch.tensor([[0.5, 2.0]], dtype=torch.float64), support)
    assert (projected.dtype, projected.tolist()) == (torch.float32, [[0.125, 0.125, 0.75]])


def test_projection_does_not_mix_rows_of_a_batch() -> None:
    atom_BK, probability_BK = tensor([-1, 0.5], [3, 0]), tensor([1 / 4, 3 / 4], [1 / 2, 1 / 2])
    support = tensor(-1, 0, 1)
    rows = [F.project(p[None], z[None], support) for p, z in zip(probability_BK, atom_BK, strict=True)]
    assert torch.equal(F.project(probability_BK, atom_BK, support), torch.cat(rows))


# --- the target of a loss, worked by hand ------------------------------------------------------------------

# Two target networks, two actions, three atoms 0, 1, 2; state 1 is the next one.
TARGETS = tensor(
    [[1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]],  # means 3/4 and 5/4
    [[1 / 4, 1 / 2, 1 / 4], [1 / 2, 3 / 8, 1 / 8]],  # means 1 and 5/8
)
# The online networks value both actions equally: π = [1/2, 1/2], H = ln 2; α = 1/(2 ln 2): a bonus of 1/2.
ALPHA = 0.5 / LN2


def make_next(*networks: Tensor) -> Tensor:
    """The table of these networks' next state, with logits 0 in state 0: ``[N, S = 2, A, K]``."""
    return torch.stack([torch.zeros(2, 2, 3), torch.stack(networks).log()], 1)


@pytest.mark.parametrize(
    ("name", "backup", "mixture"),
    [
        # Σ π Q̄ = 1 and 13/16: the second's, (its action 0 + its action 1)/2
        ("sqn", "expected", [3 / 8, 7 / 16, 3 / 16]),
        # the first's action 0 (3/4 < 1) and the second's action 1 (5/8 < 5/4), halves
        ("sqn", "expected_min", [1 / 2, 5 / 16, 3 / 16]),
        # quarters of all four
        ("sqn", "expected_mean", [3 / 8, 11 / 32, 9 / 32]),
        # the best are 5/4 and 1: the second's action 0
        ("sqn", "max", [1 / 4, 1 / 2, 1 / 4]),
        ("dqn", None, [1 / 4, 1 / 2, 1 / 4]),
        ("discrete_sac", "expected", [3 / 8, 7 / 16, 3 / 16]),
    ],
)
def test_target_worked_by_hand(make_loss, make_temperature, name: str, backup: str | None, mixture) -> None:
    settings = {} if backup is None else {"backup": backup}
    temperature = make_temperature(initial=ALPHA, n_actions=2)
    support = Categorical(v_min=0, v_max=2, atoms=3)
    online = make_next(*torch.full((2, 2, 3), 1 / 3))
    loss = make_loss(
        name, online, make_next(*TARGETS), distribution=support, temperature=temperature, **settings
    )
    bonus = 0 if name == "dqn" else 0.5
    batch = Batch(
        observation=torch.tensor([0, 0, 0]),
        action=torch.tensor([0, 1, 1]),
        reward=torch.tensor([0.5 - bonus / 2, 0.25, 1.0 - bonus]),
        next_observation=torch.tensor([1, 1, 1]),
        terminated=torch.tensor([False, True, False]),  # the others may be truncated: they bootstrap
        discount=torch.tensor([0.5, 0.5, 1.0]),
        place=torch.arange(3),
    )
    target_BK = loss.target(batch, loss.q_net.values(batch.observation))
    low, middle, high = mixture
    # r + γ bonus = 1/2: the atoms 1/2, 1, 3/2 go half to 0 and half to 1; to 1; half to 1 and half to 2
    bootstrapped = [low / 2, low / 2 + middle + high / 2, high / 2]
    # terminated: 1/4 is all there is.  γ = 1: atoms 1, 2, 3, and 3 counts as 2
    assert_close(target_BK, tensor(bootstrapped, [3 / 4, 1 / 4, 0], [0, low, middle + high]))
    # δ: the online mean is 1
    terms = loss.compute(batch)
    means = [(middle + 2 * high) / 2 + 1 / 2, 1 / 4, low + 2 * (middle + high)]
    assert_close(terms.td_error, tensor(*[[1 - mean for mean in means]] * 2))
    # every atom has the probability 1/3: the cross entropy is ln 3 whatever the target
    assert_close(terms.losses["loss_q"], torch.tensor(2 * math.log(3)))


def test_the_sampled_target_is_one_action_of_the_smaller_twin(make_loss, make_temperature) -> None:
    settings = {"temperature": make_temperature(initial=ALPHA, n_actions=2), "backup": "sampled"}
    support, online = Categorical(v_min=0, v_max=2, atoms=3), make_next(*torch.full((2, 2, 3), 1 / 3))
    loss, n = make_loss("sqn", online, make_next(*TARGETS), distribution=support, **settings), 40
    batch = Batch(
        observation=torch.zeros(n, dtype=torch.int64),
        action=torch.zeros(n, dtype=torch.int64),
        reward=torch.full((n,), 0.25),
        next_observation=torch.ones(n, dtype=torch.int64),
        terminated=torch.zeros(n, dtype=torch.bool),
        discount=torch.full((n,), 0.5),
        place=torch.arange(n),
    )
    target_BK = loss.target(batch, loss.q_net.values(batch.observation))
    # the first's action 0 or the second's action 1, on the atoms 1/2, 1, 3/2 as above
    wanted = {(1 / 4, 1 / 4 + 1 / 4 + 1 / 8, 1 / 8), (1 / 4, 1 / 4 + 3 / 8 + 1 / 16, 1 / 16)}
    assert {tuple(round(x * 1024) / 1024 for x in row) for row in target_BK.tolist()} == wanted
    assert_close((target_BK * 1024).round() / 1024, target_BK)


# --- the cross entropy -------------------------------------------------------------------------------------


def test_cross_entropy_worked_by_hand() -> None:
    logit_NBK = tensor([[1 / 2, 1 / 4, 1 / 4]], [[1, 1, 6]]).log()  # of the second: 1/8, 1/8, 3/4
    target_BK = tensor([1 / 2, 1 / 2, 0])
    # −(ln 1/2 + ln 1/4)/2 = 3/2 ln 2;  −ln 1/8 = 3 ln 2
    assert_close(F.cross_entropy(logit_NBK, target_BK), tensor([1.5 * LN2], [3 * LN2]))


def test_the_gradient_of_the_loss_is_the_difference_of_the_probabilities() -> None:
    torch.manual_seed(0)
    prediction = torch.randn(2, 4, 3, 5, requires_grad=True)
    target_BK, action_B = torch.rand(4, 5).softmax(-1), torch.tensor([2, 0, 1, 1])
    distribution = Categorical(v_min=-1, v_max=1, atoms=5)
    loss_NB, td_error_NB = distribution.loss(prediction, action_B, target_BK)
    loss_NB.sum().backward()
    wanted = torch.zeros(2, 4, 3, 5)
    for i in range(2):
        for b, a in enumerate(action_B.tolist()):
            exp = [math.exp(x) for x in prediction[i, b, a].tolist()]
            p = [x / sum(exp) for x in exp]
            wanted[i, b, a] = torch.tensor(p) - target_BK[b]
            delta = sum((p[k] - target_BK[b, k].item()) * (k / 2 - 1) for k in range(5))
            assert td_error_NB[i, b].item() == pytest.approx(delta, abs=1e-12)
    assert_close(prediction.grad, wanted)


def test_the_mean_is_the_expectation_of_the_atoms() -> None:
    mean = Categorical(v_min=-1, v_max=3, atoms=3).mean(tensor([[[1, 2, 5]]]).log())
    assert_close(mean, tensor([[2]]))  # (−1 + 1 · 2 + 3 · 5)/8 = 2
