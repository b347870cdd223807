"""The Boltzmann actor: what it writes, and that it needs a temperature."""

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from sqn_rl import BoltzmannActor, FixedTemperature, WiringError

ALPHA = 0.5
Q1, Q2 = [3.0, 2.5, 2.0, 0.0], [0.0, 1.0, 0.5, 1.5]  # min: [0, 1, .5, 0]


class Table(nn.Module):
    """Twin Q-networks that return Q1 and Q2 for every observation."""

    in_keys = ("observation",)
    observation_shape = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.q_NA = nn.Parameter(torch.tensor([Q1, Q2]))

    def values(self, observation: Tensor) -> Tensor:
        return self.q_NA.unsqueeze(1).expand(-1, len(observation), -1)

    def first(self, observation: Tensor) -> Tensor:
        return self.values(observation)[0]


def make_actor(policy: str = "q1") -> BoltzmannActor:
    return BoltzmannActor(q_net=Table(), temperature=FixedTemperature(alpha=ALPHA), policy=policy, seed=0)


@pytest.mark.parametrize("lead", [[], [3], [2, 5]], ids=str)
def test_a_boltzmann_actor_module_writes_the_action_its_log_prob_and_the_entropy(lead: list[int]) -> None:
    actor = make_actor()
    out = actor(TensorDict({"observation": torch.zeros(*lead, 1)}, batch_size=lead))
    log_pi_A = torch.log_softmax(torch.tensor(Q1) / ALPHA, 0)
    assert actor.out_keys == ["action", "log_prob", "entropy"]
    assert out["action"].dtype == torch.int64
    assert out["action"].shape == torch.Size(lead)
    torch.testing.assert_close(out["log_prob"], log_pi_A[out["action"]])
    torch.testing.assert_close(out["entropy"], -(log_pi_A.exp() * log_pi_A).sum().expand(lead))
    assert not any(tensor.requires_grad for tensor in out.values())


def test_a_boltzmann_actor_accepts_its_observation_as_a_keyword() -> None:
    action, log_prob, entropy = make_actor()(observation=torch.zeros(5, 1))
    assert action.shape == log_prob.shape == entropy.shape == (5,)


def test_alpha_is_saved_and_loaded_with_the_weights() -> None:
    actor, other = make_actor(), make_actor()
    actor.temperature.alpha.fill_(0.01)
    other.load_state_dict(actor.state_dict())
    torch.testing.assert_close(other.temperature.alpha, torch.tensor(0.01))
    assert other.act(torch.zeros(500, 1)).unique().tolist() == [0]  # cold: greedy


def test_a_boltzmann_actor_without_a_temperature_is_refused() -> None:
    with pytest.raises(WiringError, match=r"temperature=learned.*actor=epsilon_greedy or greedy") as raised:
        BoltzmannActor(q_net=Table(), temperature=None, policy="q1", seed=0)
    assert raised.value.consumer == "actor"
