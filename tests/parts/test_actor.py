"""The Boltzmann actor: it does the softmax of Q/α, and its randomness is its own."""

import pickle
from copy import deepcopy

import pytest
import torch
from scipy.stats import chisquare
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.envs.utils import ExplorationType, exploration_type, set_exploration_type

from sqn_rl import BoltzmannActor, FixedTemperature, SettingError

ALPHA = 0.5
Q1, Q2 = [3.0, 2.5, 2.0, 0.0], [0.0, 1.0, 0.5, 1.5]  # min: [0, 1, .5, 0]
DETERMINISTIC = [ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN]


class Table(nn.Module):
    """Twins that answer Q1 and Q2 to everything."""

    in_keys = ("observation",)
    observation_shape = (1,)

    def __init__(self) -> None:
        super().__init__()
        self.q_NA = nn.Parameter(torch.tensor([Q1, Q2]))

    def values(self, observation: Tensor) -> Tensor:
        return self.q_NA.unsqueeze(1).expand(-1, len(observation), -1)


def make_actor(policy: str = "q1", seed: int = 0) -> BoltzmannActor:
    return BoltzmannActor(q_net=Table(), temperature=FixedTemperature(alpha=ALPHA), policy=policy, seed=seed)


def see(n: int) -> TensorDict:
    return TensorDict({"observation": torch.zeros(n, 1)}, batch_size=[n])


@pytest.mark.parametrize(("policy", "q"), [("q1", Q1), ("min", [0.0, 1.0, 0.5, 0.0])])
def test_actions_have_the_frequencies_of_the_softmax(policy: str, q: list[float]) -> None:
    n = 20_000
    counts = make_actor(policy).act(torch.zeros(n, 1)).bincount(minlength=4)
    expected = n * torch.softmax(torch.tensor(q, dtype=torch.float64) / ALPHA, 0)
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("policy", "best"), [("q1", 0), ("min", 1)])
def test_greedy_takes_the_best_action_of_its_policy(policy: str, best: int) -> None:
    assert make_actor(policy).act(torch.zeros(50, 1), greedy=True).tolist() == [best] * 50


@pytest.mark.parametrize("lead", [[], [3], [2, 5]], ids=str)
def test_as_a_module_it_writes_the_action_its_log_probability_and_the_entropy(lead: list[int]) -> None:
    actor = make_actor()
    out = actor(TensorDict({"observation": torch.zeros(*lead, 1)}, batch_size=lead))
    log_pi_A = torch.log_softmax(torch.tensor(Q1) / ALPHA, 0)
    assert actor.out_keys == ["action", "log_prob", "entropy"]
    assert out["action"].dtype == torch.int64
    assert out["action"].shape == torch.Size(lead)
    torch.testing.assert_close(out["log_prob"], log_pi_A[out["action"]])
    torch.testing.assert_close(out["entropy"], -(log_pi_A.exp() * log_pi_A).sum().expand(lead))
    assert not any(tensor.requires_grad for tensor in out.values())


def test_it_takes_keywords_too() -> None:
    action, log_prob, entropy = make_actor()(observation=torch.zeros(5, 1))
    assert action.shape == log_prob.shape == entropy.shape == (5,)


def test_it_samples_unless_torchrl_says_deterministic() -> None:
    assert exploration_type() is None
    assert len(make_actor()(see(500))["action"].unique()) > 1
    with set_exploration_type(ExplorationType.RANDOM):
        assert len(make_actor()(see(500))["action"].unique()) > 1
    for kind in DETERMINISTIC:
        with set_exploration_type(kind):
            assert make_actor()(see(500))["action"].unique().tolist() == [0]


def test_alpha_travels_with_the_weights() -> None:
    actor, other = make_actor(), make_actor()
    actor.temperature.alpha.fill_(0.01)
    other.load_state_dict(actor.state_dict())
    torch.testing.assert_close(other.temperature.alpha, torch.tensor(0.01))
    assert other.act(torch.zeros(500, 1)).unique().tolist() == [0]  # cold: greedy


def test_its_generator_is_its_own() -> None:
    before = torch.get_rng_state()
    actions = make_actor().act(torch.zeros(100, 1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1234)
    assert torch.equal(make_actor().act(torch.zeros(100, 1)), actions)
    assert not torch.equal(make_actor(seed=1).act(torch.zeros(100, 1)), actions)


def test_a_generator_that_is_lent_spares_its_own() -> None:
    actor, x = make_actor(), torch.zeros(100, 1)
    lent = actor.act(x, generator=torch.Generator().manual_seed(7))
    assert torch.equal(actor.act(x, generator=torch.Generator().manual_seed(7)), lent)
    actor.act(x, greedy=True)
    assert torch.equal(actor.act(x), make_actor().act(x))


@pytest.mark.parametrize(
    "copy", [deepcopy, lambda actor: pickle.loads(pickle.dumps(actor))], ids=["copy", "pickle"]
)
def test_a_copy_goes_on_where_the_original_is(copy) -> None:
    """Collectors copy their policy, and send it to other processes."""
    actor = make_actor()
    actor.act(torch.zeros(10, 1))
    twin = copy(actor)
    assert torch.equal(twin.act(torch.zeros(100, 1)), actor.act(torch.zeros(100, 1)))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(SettingError, match="q1, min"):
        make_actor("q2")
