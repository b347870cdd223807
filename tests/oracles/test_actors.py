"""Actors: action frequencies by numerical integration, schedules and mean weights by hand.

The networks are tables: N = 2 networks answer ``q + σ f(ε)`` to everything, where f(ε) = sgn(ε) √|ε| is one
number, the noise.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm
from torch import Tensor, nn

from sqn_rl.parts.actor.base import NetworkActor
from sqn_rl.parts.actor.boltzmann import BoltzmannActor
from sqn_rl.parts.actor.epsilon_greedy import EpsilonGreedyActor
from sqn_rl.parts.actor.greedy import GreedyActor
from sqn_rl.parts.actor.policy import PolicyActor
from sqn_rl.parts.encoder.mlp import MLP
from sqn_rl.parts.layers.dense import Dense
from sqn_rl.parts.layers.noisy import NoisyDense
from sqn_rl.parts.noise import Noise
from sqn_rl.parts.temperature.fixed import FixedTemperature
from sqn_rl.protocols import Laddered

ALPHA = 0.5
Q = [[1.0, 0.0, 0.4], [0.0, 0.5, 0.8]]  # min: [0, 0, .4]
SIGMA = [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
ONE = torch.zeros(1, 1)


class Table(nn.Module):
    in_keys, observation_shape = ("observation",), (1,)

    def __init__(self) -> None:
        super().__init__()
        self.q_NA = nn.Parameter(torch.tensor(Q))

    def values(self, observation: Tensor) -> Tensor:
        return self.q_NA.unsqueeze(1).expand(-1, len(observation), -1)

    def first(self, observation: Tensor) -> Tensor:
        return self.values(observation)[0]


class NoisyTable(Table):
    noise_size, noise = 1, None

    def set_noise(self, noise: Tensor | None) -> None:
        self.noise = noise

    def values(self, observation: Tensor) -> Tensor:
        moved = 0 if self.noise is None else torch.tensor(SIGMA).unsqueeze(1) * self.noise
        return super().values(observation) + moved


def softmax(q: np.ndarray) -> np.ndarray:
    weight = np.exp((q - q.max(-1, keepdims=True)) / ALPHA)
    return weight / weight.sum(-1, keepdims=True)


def over_noise(policy: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The mean of a policy of Q_1 over its noise: the mid-point rule over even probabilities of ε."""
    epsilon = norm.ppf((np.arange(100_000) + 0.5) / 100_000)
    noise = np.sign(epsilon) * np.sqrt(np.abs(epsilon))
    return policy(np.array(Q[0]) + np.outer(noise, SIGMA[0])).mean(0)


def boltzmann(q_net: nn.Module, policy: str = "q1") -> BoltzmannActor:
    return BoltzmannActor(q_net=q_net, temperature=FixedTemperature(alpha=ALPHA), policy=policy, seed=0)


def epsilon_greedy(q_net: nn.Module, policy: str = "q1", epsilon: float = 0.3) -> EpsilonGreedyActor:
    fixed = {"start": epsilon, "end": epsilon, "over": 1.0, "steps": 10}
    return EpsilonGreedyActor(q_net=q_net, policy=policy, seed=0, **fixed)


def greedy(q_net: nn.Module, policy: str = "q1") -> GreedyActor:
    return GreedyActor(q_net=q_net, policy=policy, seed=0)


def policy_actor(layer: Callable[..., nn.Module] = Dense, **settings: Any) -> PolicyActor:
    encoder = partial(MLP, hidden=[4])
    return PolicyActor(q_net=Table(), encoder=encoder, layer=layer, n_actions=3, seed=0, **settings)


def noisy_policy_actor() -> PolicyActor:
    return policy_actor(partial(NoisyDense, sigma=2.0))


def agrees(actions: Tensor, probability: np.ndarray) -> bool:
    """Whether these are draws from this distribution; actions of probability 0 must not occur."""
    counts, possible = actions.bincount(minlength=len(probability)).numpy(), probability > 0
    if counts[~possible].any() or possible.sum() == 1:
        return not counts[~possible].any()
    return chisquare(counts[possible], len(actions) * probability[possible]).pvalue > 1e-3


VALUE_ACTORS = [boltzmann, epsilon_greedy, greedy]
Q1, MINIMUM = np.array(Q[0]), np.array(Q).min(0)
BEST = {"q1": 0, "min": 2}
FREQUENCIES = {
    boltzmann: {"q1": softmax(Q1), "min": softmax(MINIMUM)},
    epsilon_greedy: {"q1": np.array([0.8, 0.1, 0.1]), "min": np.array([0.1, 0.1, 0.8])},  # .7 + .3/3
    greedy: {"q1": np.array([1.0, 0.0, 0.0]), "min": np.array([0.0, 0.0, 1.0])},
}


# --- value actors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["q1", "min"])
@pytest.mark.parametrize("make", VALUE_ACTORS)
def test_an_actor_takes_actions_with_the_probabilities_of_its_policy(
    make: Callable[..., NetworkActor], policy: str
) -> None:
    observation = torch.zeros(20_000, 1)
    assert agrees(make(Table(), policy).act(observation), FREQUENCIES[make][policy])
    assert make(Table(), policy).act(observation, greedy=True).unique().tolist() == [BEST[policy]]


@pytest.mark.parametrize("mask", [None, [True, False, True]])
@pytest.mark.parametrize("ladder", [False, True])
@pytest.mark.parametrize("make", [*VALUE_ACTORS, policy_actor])
def test_recorded_log_probabilities_match_the_action_frequencies(
    make: Callable[..., Any], ladder: bool, mask: list[bool] | None
) -> None:
    torch.manual_seed(0)
    actor = make() if make is policy_actor else make(Table())
    if ladder and isinstance(actor, Laddered):
        actor.explore(torch.full((20_000,), 0.8), 3.0)
    options = {} if mask is None else {"action_mask": mask}
    action_B, log_mu_B = actor.act_recorded(torch.zeros(20_000, *actor.observation_spec.shape), **options)
    assert log_mu_B.dtype == torch.float32
    probability = np.zeros(3)
    for action in action_B.unique().tolist():
        (log_mu,) = log_mu_B[action_B == action].unique().tolist()
        probability[action] = math.exp(log_mu)
    assert probability.sum() == pytest.approx(1, abs=1e-6)
    assert agrees(action_B, probability / probability.sum())
    if ladder and make is epsilon_greedy:
        epsilon, allowed = 0.4 ** (1 + 7 * 0.8), 3 if mask is None else 2
        assert probability.max() == pytest.approx(1 - epsilon + epsilon / allowed, abs=1e-6)
    if ladder and make is boltzmann:
        weight = np.exp(Q1 / (ALPHA * 3 ** (1 - 1.6))) * (1 if mask is None else np.array(mask))
        np.testing.assert_allclose(probability, weight / weight.sum(), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "q", "alpha"),
    [
        (boltzmann, [1000, 1000, 1000], 1e-4),
        (boltzmann, [1e5, 1e5 + 2**-7, 1e5 - 2**-7], 1e-2),  # float32 has no number between these
        (boltzmann, [1e5, 1e5, 1e5 - 2**-7], 1e-3),
        (boltzmann, [1e6 + 0.125, 1e6, 1e6 - 0.25], 0.2),
        (boltzmann, [-1e6, -1e6 + 0.0625, -1e6], 0.02),
        (boltzmann, [3.0, 1e6, 1e6], 1.0),
        (policy_actor, [2.0**23, 2.0**23 + 1, 2.0**23 - 1], 1.0),
        (policy_actor, [-1e6, -1e6, 0.0], 1.0),
    ],
)
def test_action_frequencies_equal_the_softmax_at_any_offset_of_q(
    make: Callable[..., Any], q: list[float], alpha: float
) -> None:
    """Of float32 scores: each within four standard deviations of softmax(Q/α) in float64."""
    actor, draws = make(Table()) if make is boltzmann else make(), 100_000
    if make is boltzmann:
        actor.temperature = FixedTemperature(alpha=alpha).float()
    score_BA = torch.tensor([q], dtype=torch.float32).expand(draws, -1)
    probability = np.exp((np.array(q) - max(q)) / alpha)
    probability /= probability.sum()
    counts = (
        actor.select_action(score_BA, actor.sample_noise(score_BA, actor.generator))
        .bincount(minlength=3)
        .numpy()
    )
    deviation = np.sqrt(draws * probability * (1 - probability))
    assert (np.abs(counts - draws * probability) <= 4 * deviation).all()
    np.testing.assert_allclose(actor.log_probs(score_BA[:1]).exp().numpy()[0], probability, atol=1e-6)


NOISY_FREQUENCIES = {
    boltzmann: over_noise(softmax),
    # Action 1 is the best where f(ε) > 1, that is where ε > 1; of probability .1587.
    greedy: np.array([norm.cdf(1), norm.sf(1), 0.0]),
    epsilon_greedy: 0.7 * np.array([norm.cdf(1), norm.sf(1), 0.0]) + 0.1,
}


@pytest.mark.parametrize("make", VALUE_ACTORS)
def test_action_frequencies_of_a_noisy_network_are_averaged_over_its_noise(
    make: Callable[..., NetworkActor],
) -> None:
    actor = make(NoisyTable())
    assert agrees(torch.cat([actor.act(ONE) for _ in range(2000)]), NOISY_FREQUENCIES[make])


@pytest.mark.parametrize("make", VALUE_ACTORS)
def test_greedy_acting_takes_the_best_action_of_the_mean_weights(make: Callable[..., NetworkActor]) -> None:
    actor = make(NoisyTable())
    for _ in range(50):
        actor.act(ONE)
        assert actor.act(ONE, greedy=True).item() == BEST["q1"]


@pytest.mark.parametrize("make", VALUE_ACTORS)
def test_every_act_redraws_the_acting_noise_and_not_that_of_the_network(
    make: Callable[..., NetworkActor],
) -> None:
    q_net = NoisyTable()
    actor = make(q_net)
    Noise(q_net).sample(torch.Generator().manual_seed(1))
    ours, seen = q_net.values(ONE), []
    for _ in range(3):
        actor.act(ONE)
        seen.append(actor.q_net.values(ONE)[0, 0, 1].item())
        assert torch.equal(q_net.values(ONE), ours)
    assert len({*seen, ours[0, 0, 1].item(), Q[0][1]}) == 5
    with torch.no_grad():
        q_net.q_NA += 1  # as an optimizer does
    assert actor.q_net.values(ONE)[0, 0, 1].item() == pytest.approx(seen[-1] + 1)


@pytest.mark.parametrize("make", VALUE_ACTORS)
def test_a_given_generator_determines_the_noise_and_the_action(make: Callable[..., NetworkActor]) -> None:
    actor = make(NoisyTable())
    before = actor.generator.get_state()

    def act(seed: int) -> tuple[float, list[int]]:
        action_B = actor.act(torch.zeros(50, 1), generator=torch.Generator().manual_seed(seed))
        return actor.q_net.values(ONE)[0, 0, 1].item(), action_B.tolist()

    assert act(1) == act(1)
    assert act(1)[0] != act(2)[0]
    assert torch.equal(actor.generator.get_state(), before)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("kind", ["boltzmann", "policy"])
def test_log_policy_is_that_of_the_mean_weights(kind: str, noisy: bool) -> None:
    """Independent of the noise that acting or the loss sampled last."""
    if kind == "boltzmann":
        actor = boltzmann(NoisyTable() if noisy else Table())
        expected = torch.tensor(np.log(softmax(Q1)))
    else:
        torch.manual_seed(0)
        actor = noisy_policy_actor() if noisy else policy_actor()
        expected = actor.policy_net(ONE).log_softmax(-1)[0, 0].detach()  # without any noise yet
    actor.act(ONE)
    Noise(actor).sample(torch.Generator().manual_seed(1))
    log_pi_BA = actor.log_policy(torch.zeros(5, 1))
    torch.testing.assert_close(log_pi_BA, expected.expand(5, 3))
    assert not log_pi_BA.requires_grad


# --- ε ------------------------------------------------------------------------------------------------------


def test_epsilon_falls_linearly_over_its_fraction_of_the_budget() -> None:
    """From 0.9 to 0.1 over 0.4 · 1000 = 400 steps: 0.002 a step."""
    fields = {"policy": "q1", "start": 0.9, "end": 0.1, "over": 0.4, "steps": 1000, "seed": 0}
    actor = EpsilonGreedyActor(q_net=Table(), **fields)
    assert actor.metrics() == {"epsilon": pytest.approx(0.9)}
    for env_steps, epsilon in {0: 0.9, 1: 0.898, 100: 0.7, 300: 0.3, 400: 0.1, 401: 0.1, 5000: 0.1}.items():
        actor.anneal(env_steps)
        assert actor.metrics() == {"epsilon": pytest.approx(epsilon)}
    actor.anneal(300)  # 0.3: best .7 + .1
    assert agrees(actor.act(torch.zeros(20_000, 1)), FREQUENCIES[epsilon_greedy]["q1"])


@pytest.mark.parametrize(("epsilon", "expected"), [(0.0, [1.0, 0.0, 0.0]), (1.0, [1 / 3] * 3)])
def test_epsilon_0_is_greedy_and_epsilon_1_is_uniform(epsilon: float, expected: list[float]) -> None:
    actor = epsilon_greedy(Table(), epsilon=epsilon)
    assert agrees(actor.act(torch.zeros(20_000, 1)), np.array(expected))


# --- a policy network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [policy_actor, noisy_policy_actor])
def test_a_policy_actor_samples_from_the_softmax_of_its_logits(make: Callable[[], PolicyActor]) -> None:
    """First the logits of the mean weights, written out; then those with the noise used while acting."""
    torch.manual_seed(0)
    actor, observation = make(), torch.full((20_000, 1), 0.7)
    encoder, last = (
        getattr(layer, "mu", layer) for layer in (actor.policy_net[0].layers[0], actor.policy_net[1])
    )
    hidden = np.maximum(0.7 * encoder.weight.detach().numpy()[0, 0] + encoder.bias.detach().numpy()[0, 0], 0)
    logits = hidden @ last.weight.detach().numpy()[0] + last.bias.detach().numpy()[0, 0]
    expected = logits - np.log(np.exp(logits).sum())
    torch.testing.assert_close(actor.log_policy(observation[:1])[0], torch.tensor(expected))
    assert (actor.act(observation, greedy=True) == logits.argmax()).all()
    action_B = actor.act(observation)
    seen = actor.scores(observation[:1])[0].softmax(-1).detach().numpy()
    assert agrees(action_B, seen)
    assert (np.abs(np.log(seen) - expected).max() > 0.01) == (make is noisy_policy_actor)


def test_acting_and_learning_use_different_noise() -> None:
    actor = noisy_policy_actor()
    Noise(actor.policy_net).sample(torch.Generator().manual_seed(1))
    observation = torch.ones(3, 1)
    learning, policy = actor.logits(observation), actor.log_policy(observation)
    acting = []
    for _ in range(3):
        actor.act(observation)
        acting.append(actor.scores(observation)[0, 0].item())
        assert torch.equal(actor.logits(observation), learning)
    actor.act(observation, greedy=True)
    assert len({*acting, actor.scores(observation)[0, 0].item()}) == 4
    assert torch.equal(actor.logits(observation), learning)
    assert not torch.allclose(learning.log_softmax(-1), policy)
    assert torch.equal(actor.log_policy(observation), policy)


@pytest.mark.parametrize("make", [policy_actor, noisy_policy_actor])
def test_the_policy_loss_has_the_gradient_of_its_formula_in_the_policy_network_only(
    make: Callable[[], PolicyActor],
) -> None:
    """L_π = Σ_a π (α log π − Q): dL/dlogit_a = π_a (α log π_a − Q_a − L_π), since Σ_a π_a = 1."""
    torch.manual_seed(0)
    actor, q_net = make(), Table()
    Noise(actor.policy_net).sample(torch.Generator().manual_seed(0))
    log_pi_BA = actor.logits(torch.ones(1, 1)).log_softmax(-1)
    q_BA = q_net.values(ONE).amin(0)
    loss = (log_pi_BA.exp() * (ALPHA * log_pi_BA - q_BA.detach())).sum()
    loss.backward()
    last = getattr(actor.policy_net[1], "mu", actor.policy_net[1])
    pi, log_pi = log_pi_BA[0].exp().detach(), log_pi_BA[0].detach()
    torch.testing.assert_close(
        last.bias.grad[0, 0], pi * (ALPHA * log_pi - torch.tensor(MINIMUM) - loss.detach())
    )
    assert all(parameter.grad is not None for parameter in actor.parameters())
    assert {*actor.parameters()} == {*actor.policy_net.parameters()}
    assert q_net.q_NA.grad is None
