"""Every loss besides its equations: a LossModule of TorchRL, with target networks and separate noise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import LossModule

from sqn_rl.errors import SettingError, WiringError
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.temperature.fixed import FixedTemperature
from sqn_rl.types import Batch

assert_close = partial(torch.testing.assert_close, rtol=1e-12, atol=1e-12)
B, STATES, ACTIONS, NETWORKS = 8, 16, 3, 2
LOSSES = ["dqn", "double_dqn", "sqn", "munchausen", "discrete_sac"]
SOFT = LOSSES[2:]
for_every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.fixture
def make(make_loss) -> Callable[..., TDLoss]:
    """A loss whose networks all differ."""

    def from_tables(name: str, **settings: Any) -> TDLoss:
        torch.manual_seed(1)
        logits, tables = torch.randn(STATES, ACTIONS), torch.randn(2, NETWORKS, STATES, ACTIONS)
        return make_loss(name, *tables, logits=logits, **settings)

    return from_tables


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


# --- networks ----------------------------------------------------------------------------------------------


@for_every_loss
def test_the_target_networks_start_as_copies_and_are_not_trained(make_loss, name: str) -> None:
    loss = make_loss(name, torch.randn(NETWORKS, STATES, ACTIONS))
    assert torch.equal(loss.target_q_net.table, loss.q_net.table)
    assert loss.target_q_net.table.data_ptr() != loss.q_net.table.data_ptr()
    assert loss.q_net.table.requires_grad
    assert not loss.target_q_net.table.requires_grad


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
def test_forward_is_compute_on_a_tensordict_of_any_shape(make, name: str) -> None:
    loss, steps_B, weight_B = make(name), 1 + torch.arange(B) % 3, torch.rand(B)
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
    assert_close(tensordict["td_error"], terms.td_error.abs().mT.reshape(2, B // 2, -1))


@for_every_loss
def test_without_steps_or_weights_each_transition_is_one_step_of_weight_1(make, name: str) -> None:
    loss, batch = make(name), make_batch(discount=torch.full((B,), 0.5))
    assert_close(loss(as_tensordict(batch))["loss_q"], loss.compute(batch).losses["loss_q"])


@for_every_loss
def test_the_loss_reads_and_writes_renamed_tensordict_keys(make, name: str) -> None:
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
def test_the_loss_accepts_tensors_as_keyword_arguments(make, name: str) -> None:
    loss, tensordict = make(name), as_tensordict(make_batch())
    wanted = loss(tensordict)
    following = {f"next_{key}": tensordict["next", key] for key in ("observation", "reward", "terminated")}
    values = loss(observation=tensordict["observation"], action=tensordict["action"], **following)
    for key, value in zip(loss.out_keys, values, strict=True):
        assert_close(value, wanted[key])


# --- required arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dqn", "double_dqn"])
def test_a_hard_loss_needs_no_temperature(make, name: str) -> None:
    loss = make(name, temperature=None)
    assert loss.out_keys == list(loss(as_tensordict(make_batch())).keys()) == ["loss_q", "q_mean"]


@pytest.mark.parametrize("name", SOFT)
def test_a_soft_loss_without_a_temperature_is_refused(make, name: str) -> None:
    with pytest.raises(WiringError, match=r"Loss needs a temperature.*choose temperature=learned") as refused:
        make(name, temperature=None)
    assert refused.value.consumer == "loss"


@for_every_loss
def test_with_a_fixed_temperature_loss_alpha_is_zero(make, name: str) -> None:
    terms = make(name, temperature=FixedTemperature(alpha=0.75)).compute(make_batch())
    assert terms.losses["loss_alpha"] == 0


@for_every_loss
@pytest.mark.parametrize("gamma", [-0.1, 1.01])
def test_a_gamma_outside_zero_to_one_is_refused(make, name: str, gamma: float) -> None:
    with pytest.raises(SettingError, match="gamma"):
        make(name, gamma=gamma)
