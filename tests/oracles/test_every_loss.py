"""What every loss must do with every head: where gradients go, weights, noise, and TorchRL's contract."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import LossModule

from sqn_rl.data import Batch
from sqn_rl.distributions import Categorical, Distribution, Quantile
from sqn_rl.errors import SettingError, WiringError
from sqn_rl.losses.td import TDLoss
from sqn_rl.losses.temperature import FixedTemperature

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
B, STATES, ACTIONS, NETWORKS, K = 8, 16, 3, 2, 5
LOSSES = ["dqn", "double_dqn", "sqn", "munchausen", "discrete_sac"]
SOFT = LOSSES[2:]
HEADS = ["scalar", "categorical", "quantile"]
for_every_loss = pytest.mark.parametrize("name", LOSSES)
for_every_head = pytest.mark.parametrize("head", HEADS)


def make_distribution(head: str) -> Distribution | None:
    if head == "categorical":
        return Categorical(v_min=-3, v_max=3, atoms=K)
    return Quantile(quantiles=K, kappa=1.0) if head == "quantile" else None


@pytest.fixture
def make(make_loss) -> Callable[..., TDLoss]:
    """A loss with a head, whose networks all differ."""

    def with_head(name: str, head: str = "scalar", **settings: Any) -> TDLoss:
        torch.manual_seed(1)
        shape = (2, NETWORKS, STATES, ACTIONS) + (() if head == "scalar" else (K,))
        logits = torch.randn(STATES, ACTIONS)
        tables = torch.randn(shape)
        return make_loss(name, *tables, distribution=make_distribution(head), logits=logits, **settings)

    return with_head


def make_batch(**columns: Tensor) -> Batch:
    """Transitions of one to three steps, between states that occur once; every fourth is terminated."""
    torch.manual_seed(2)
    batch = Batch(
        observation=torch.arange(B),
        action=torch.randint(ACTIONS, (B,)),
        reward=torch.randn(B),
        next_observation=torch.arange(B, STATES),
        terminated=torch.arange(B) % 4 == 0,
        discount=0.5 ** (1.0 + torch.arange(B) % 3),
        place=torch.arange(B),
    )
    return batch._replace(**columns)


# --- where gradients go ------------------------------------------------------------------------------------


@for_every_loss
@for_every_head
def test_property_8_loss_q_trains_the_predictions_for_the_actions_taken_and_nothing_else(
    make, name: str, head: str
) -> None:
    """Not the policy in the target nor the one in the reward, not the targets, not α."""
    loss, batch = make(name, head), make_batch()
    loss.target_q_net.requires_grad_()  # so that a leak would show
    loss.temperature.alpha.requires_grad_()
    loss.compute(batch).losses["loss_q"].backward()
    grad_NSA = loss.q_net.table.grad.reshape(NETWORKS, STATES, ACTIONS, -1).abs().amax(-1)
    trained_NSA = torch.zeros(NETWORKS, STATES, ACTIONS, dtype=torch.bool)
    trained_NSA[:, batch.observation, batch.action] = True
    assert torch.equal(grad_NSA > 0, trained_NSA)
    others = dict(loss.named_parameters()) | {"alpha": loss.temperature.alpha}
    del others["q_net.table"]
    assert {key for key, parameter in others.items() if parameter.grad is not None} == set()


@for_every_head
def test_its_gradient_is_that_of_finite_differences_with_the_target_held(make, head: str) -> None:
    loss, batch, h = make("sqn", head), make_batch(), 1e-6
    terms = loss.compute(batch)
    terms.losses["loss_q"].backward()
    target, table = loss.target(batch, terms.q), loss.q_net.table.data
    predictions = loss.q_net.table.grad[:, 3, batch.action[3]]  # of the fourth transition
    for entry in torch.ones_like(predictions).nonzero().tolist():
        ends, place = [], (entry[0], 3, batch.action[3], *entry[1:])
        for step in (-h, 2 * h):
            table[place] += step
            prediction = loss.q_net.predict(batch.observation)
            loss_NB, _ = loss.q_net.distribution.loss(prediction, batch.action, target)
            ends.append(loss_NB.sum().item() / B)
        table[place] -= h
        assert predictions[tuple(entry)].item() == pytest.approx((ends[1] - ends[0]) / (2 * h), abs=1e-8)


@for_every_loss
@for_every_head
def test_loss_alpha_trains_the_temperature_and_nothing_else(make, name: str, head: str) -> None:
    loss = make(name, head)
    terms = loss.compute(make_batch())
    terms.losses["loss_alpha"].backward()
    # d/d log α of α (H − H̄) is itself
    assert_close(loss.temperature.parameter.grad, terms.losses["loss_alpha"].detach())
    trained = {key for key, parameter in loss.named_parameters() if parameter.grad is not None}
    assert trained == {"temperature.parameter"}


@for_every_loss
@for_every_head
def test_what_is_reported_carries_no_gradient_and_is_of_the_online_networks(
    make, name: str, head: str
) -> None:
    loss, batch = make(name, head), make_batch()
    terms = loss.compute(batch)
    assert not any(reported.requires_grad for reported in (terms.td_error, terms.q, terms.log_pi))
    assert_close(terms.q, loss.q_net.values(batch.observation).detach())
    wanted = loss.policy_net.table[0, :B] if name == "discrete_sac" else terms.q[0] / loss.temperature.alpha
    assert_close(terms.log_pi, wanted.detach().log_softmax(-1))
    target = loss.target(batch, terms.q)
    mean_B = {
        "scalar": lambda: target,
        "categorical": lambda: target @ loss.q_net.distribution.support,
        "quantile": lambda: (target[0] * target[1]).sum(-1),
    }[head]()
    assert_close(terms.td_error, terms.q[:, torch.arange(B), batch.action] - mean_B)


@for_every_loss
def test_the_target_networks_start_as_copies_and_are_not_trained(make_loss, name: str) -> None:
    loss = make_loss(name, torch.randn(NETWORKS, STATES, ACTIONS))
    assert torch.equal(loss.target_q_net.table, loss.q_net.table)
    assert loss.target_q_net.table.data_ptr() != loss.q_net.table.data_ptr()
    assert loss.q_net.table.requires_grad
    assert not loss.target_q_net.table.requires_grad


@for_every_loss
@for_every_head
@pytest.mark.parametrize("where", ["reward", "q_net", "target_q_net"])
def test_nan_comes_out_as_nan_and_not_as_some_error_on_its_way(
    make, name: str, head: str, where: str
) -> None:
    settings = {"backup": "sampled"} if name in SOFT else {}
    loss, batch = make(name, head, **settings), make_batch()
    if where == "reward":
        batch.reward[0] = torch.nan
    else:
        getattr(loss, where).table.data.fill_(torch.nan)
    assert loss.compute(batch).losses["loss_q"].isnan()


# --- importance weights ------------------------------------------------------------------------------------


@for_every_loss
@for_every_head
def test_loss_q_is_linear_in_the_weights(make, name: str, head: str) -> None:
    def loss_q(weight_B: Tensor | None) -> Tensor:
        return make(name, head).compute(make_batch(weight=weight_B)).losses["loss_q"].detach()

    weight_B = torch.linspace(0, 1, B) ** 2
    alone = torch.stack([loss_q(row_B) for row_B in torch.eye(B)])  # each as if the others had no weight
    assert (alone > 0).all()
    assert_close(loss_q(weight_B), weight_B @ alone)
    assert_close(loss_q(None), alone.sum())
    others = [make(name, head).compute(make_batch(weight=w)).losses for w in (None, weight_B)]
    for unweighted in set(others[0]) - {"loss_q"}:  # those of states, not of transitions
        assert torch.equal(others[0][unweighted], others[1][unweighted])


# --- noise -------------------------------------------------------------------------------------------------


@for_every_loss
def test_each_network_has_its_own_noise_redrawn_for_every_batch(make, name: str) -> None:
    batch = make_batch()

    def noises(seed: int) -> list[float]:
        loss, found = make(name, noisy=True, seed=seed), []
        before = torch.get_rng_state()
        for _ in range(3):
            terms = loss.compute(batch)
            assert_close(terms.q, (loss.q_net.table[:, :B] + loss.q_net.noise[:, None, None]).detach())
            nets = [loss.q_net, loss.target_q_net, getattr(loss, "policy_net", None)]
            found += [x for net in nets if net is not None for x in net.noise.tolist()]
        assert torch.equal(before, torch.get_rng_state())
        return found

    drawn = noises(seed=0)
    assert len(set(drawn)) == len(drawn) == 3 * (5 if name == "discrete_sac" else 4)
    assert 0 not in drawn
    assert drawn == noises(seed=0) != noises(seed=1)


# --- TorchRL's contract ------------------------------------------------------------------------------------


def as_tensordict(batch: Batch, **extra: Tensor) -> TensorDict:
    """The batch as TorchRL has it, in two rows; the transitions not terminated were cut short."""
    following = {
        "observation": batch.next_observation,
        "reward": batch.reward[:, None],
        "terminated": batch.terminated[:, None],
        "truncated": ~batch.terminated[:, None],
        "done": torch.ones(B, 1, dtype=torch.bool),
    }
    columns = {"observation": batch.observation, "action": batch.action, "next": following, **extra}
    return TensorDict(columns, batch_size=[B]).reshape(2, B // 2)


@for_every_loss
@for_every_head
def test_forward_is_compute_on_a_tensordict_of_any_shape(make, name: str, head: str) -> None:
    loss, steps_B, weight_B = make(name, head), 1 + torch.arange(B) % 3, torch.rand(B)
    batch = make_batch(weight=weight_B)  # of these numbers of steps
    tensordict = as_tensordict(batch, steps_to_next_obs=steps_B[:, None], priority_weight=weight_B)
    assert set(loss.in_keys) <= set(tensordict.keys(include_nested=True))
    out, terms = loss(tensordict), loss.compute(batch)
    assert isinstance(loss, LossModule)
    assert list(out.keys()) == loss.out_keys
    assert {key for key in loss.out_keys if key.startswith("loss_")} == set(terms.losses)
    for key, value in terms.losses.items():
        assert_close(out[key], value)
    assert_close(out["q_mean"], terms.q.mean())
    assert_close(out["alpha"], torch.tensor(0.75))
    entropy_B = -(terms.log_pi.exp() * terms.log_pi).sum(-1)
    assert_close(out["entropy"], entropy_B.mean())
    assert_close(tensordict["td_error"], terms.td_error.abs().mean(0).reshape(2, B // 2))


@for_every_loss
def test_without_steps_or_weights_each_transition_is_one_step_and_counts_as_1(make, name: str) -> None:
    loss, batch = make(name), make_batch(discount=torch.full((B,), 0.5))
    assert_close(loss(as_tensordict(batch))["loss_q"], loss.compute(batch).losses["loss_q"])


@for_every_loss
def test_keys_can_be_set(make, name: str) -> None:
    loss, batch = make(name), make_batch()
    plain = as_tensordict(batch, steps_to_next_obs=1 + torch.arange(B) % 3, priority_weight=torch.rand(B))
    wanted = loss(plain)
    names = {"action": "move", "steps_to_next_obs": "m", "priority_weight": "w", "td_error": "surprise"}
    renamed = plain.exclude("td_error")
    for old, new in list(names.items())[:3]:
        renamed.rename_key_(old, new)
    renamed.rename_key_(("next", "reward"), ("next", "points"))
    renamed.rename_key_(("next", "terminated"), ("next", "dead"))
    loss.set_keys(
        action="move", steps="m", weight="w", td_error="surprise", reward="points", terminated="dead"
    )
    following = [("next", key) for key in ("observation", "points", "dead")]
    assert loss.in_keys == ["observation", "move", *following]
    for key, value in loss(renamed).items():
        assert_close(value, wanted[key])
    assert_close(renamed["surprise"], plain["td_error"])


@for_every_loss
def test_it_takes_keywords(make, name: str) -> None:
    loss, tensordict = make(name), as_tensordict(make_batch())
    wanted = loss(tensordict)
    following = {f"next_{key}": tensordict["next", key] for key in ("observation", "reward", "terminated")}
    values = loss(observation=tensordict["observation"], action=tensordict["action"], **following)
    for key, value in zip(loss.out_keys, values, strict=True):
        assert_close(value, wanted[key])


# --- what a loss asks for ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dqn", "double_dqn"])
@for_every_head
def test_a_hard_loss_needs_no_temperature(make, name: str, head: str) -> None:
    loss = make(name, head, temperature=None)
    assert loss.out_keys == list(loss(as_tensordict(make_batch())).keys()) == ["loss_q", "q_mean"]


@pytest.mark.parametrize("name", SOFT)
def test_a_soft_loss_refuses_to_be_without(make, name: str) -> None:
    with pytest.raises(WiringError, match=r"Loss needs a temperature.*choose temperature=learned") as refused:
        make(name, temperature=None)
    assert refused.value.consumer == "loss"


@for_every_loss
def test_a_fixed_temperature_learns_nothing(make, name: str) -> None:
    terms = make(name, temperature=FixedTemperature(alpha=0.75)).compute(make_batch())
    assert terms.losses["loss_alpha"] == 0


@for_every_loss
@pytest.mark.parametrize("gamma", [-0.1, 1.01])
def test_an_impossible_discount_is_refused(make, name: str, gamma: float) -> None:
    with pytest.raises(SettingError, match="gamma"):
        make(name, gamma=gamma)
