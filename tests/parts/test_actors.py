"""Every actor, with and without noisy layers: it has its own generator, and evaluation does not change it."""

import pickle
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.envs import GymEnv as TheirGymEnv
from torchrl.envs.utils import ExplorationType, exploration_type, set_exploration_type

from sqn_rl import (
    MLP,
    BoltzmannActor,
    Dense,
    EpsilonGreedyActor,
    FixedTemperature,
    GreedyActor,
    GymEnv,
    NoisyDense,
    PolicyActor,
    QNet,
    SettingError,
    evaluate,
)
from sqn_rl.parts.actor.base import NetworkActor

GREEDY = [each for each in ExplorationType if each is not ExplorationType.RANDOM]
LAYERS = {"dense": Dense, "noisy": partial(NoisyDense, sigma=2.0)}
OF_VALUES = {
    "boltzmann": partial(BoltzmannActor, temperature=FixedTemperature(alpha=1.0)),
    "epsilon_greedy": partial(EpsilonGreedyActor, start=0.5, end=0.1, over=0.5, steps=100),
    "greedy": GreedyActor,
}

X = torch.linspace(-1, 1, 80).view(20, 4)

Make = Callable[..., NetworkActor]
pytestmark = pytest.mark.filterwarnings("ignore:Creating .*WeightUpdater which inherits:DeprecationWarning")


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    return LAYERS[request.param]


@pytest.fixture(params=[*OF_VALUES, "policy"])
def make(request: pytest.FixtureRequest, layer: Callable[..., nn.Module], make_q_net: Callable) -> Make:
    """Makes one actor from ``seed``, for the given Q-network or for a new one."""

    def make(seed: int = 0, q_net: QNet | None = None) -> NetworkActor:
        torch.manual_seed(0)
        q_net = q_net or make_q_net(layer=layer, n_actions=2, hidden=(16,))
        if request.param in OF_VALUES:
            return OF_VALUES[request.param](q_net=q_net, policy="q1", seed=seed)
        return PolicyActor(
            q_net=q_net, encoder=partial(MLP, hidden=[16]), layer=layer, n_actions=2, seed=seed
        )

    return make


def is_random(actor: NetworkActor) -> bool:
    """Whether its actions vary: a greedy actor's do not, without noisy layers."""
    return not isinstance(actor, GreedyActor) or is_noisy(actor)


def is_noisy(module: nn.Module) -> bool:
    return any(isinstance(part, NoisyDense) for part in module.modules())


def acts(actor: NetworkActor, times: int = 10) -> Tensor:
    return torch.stack([actor.act(X) for _ in range(times)])


def test_an_actors_actions_depend_on_its_seed_and_not_on_the_global_generator(make: Make) -> None:
    actor, other = make(seed=0), make(seed=1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = acts(actor)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(acts(make(seed=0)), first)
    assert torch.equal(acts(other), first) != is_random(actor)
    assert first.dtype == torch.int64


def test_a_copied_or_pickled_actor_continues_from_the_originals_random_state(make: Make) -> None:
    """Collectors copy their policy, and send it to other processes."""
    for copy in (deepcopy, lambda actor: pickle.loads(pickle.dumps(actor))):
        actor = make()
        acts(actor)
        twin = copy(actor)
        expected = acts(actor)
        acts(actor)
        assert torch.equal(acts(twin), expected)


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "stochastic"])
def test_an_evaluation_does_not_change_later_training_actions(make: Make, greedy: bool) -> None:
    """Actions, policies and weights are the same with and without evaluations in between."""

    def train(*, evaluating: bool) -> Iterator[Tensor]:
        actor = make()
        weights = {name: tensor.clone() for name, tensor in actor.state_dict().items()}
        env = GymEnv(id="CartPole-v1", num_envs=2, seed=5, training=False)
        for _ in range(5):
            yield actor.act(X)
            if evaluating:
                evaluate(actor, env, episodes=2, greedy=greedy, seed=3)
            if hasattr(actor, "log_policy"):
                yield actor.log_policy(X)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in actor.state_dict().items())

    pairs = zip(train(evaluating=True), train(evaluating=False), strict=True)
    assert all(torch.equal(with_it, without) for with_it, without in pairs)


@pytest.mark.parametrize("greedy", [True, False], ids=["greedy", "stochastic"])
def test_an_evaluation_is_determined_by_its_seed(make: Make, greedy: bool) -> None:
    actor = make()

    def play(seed: int) -> list[float]:
        env = GymEnv(id="CartPole-v1", num_envs=2, seed=5, training=False)
        return evaluate(actor, env, episodes=6, greedy=greedy, seed=seed).returns

    first = play(seed=1)
    assert play(seed=1) == first
    assert (play(seed=2) == first) == (greedy or not is_random(actor))


def test_an_actor_has_only_the_parameters_of_its_network(make: Make, layer: Any, make_q_net: Any) -> None:
    q_net = make_q_net(layer=layer, n_actions=2)
    actor = make(q_net=q_net)
    if isinstance(actor, PolicyActor):
        assert {*actor.parameters()} == {*actor.policy_net.parameters()}
    else:
        assert {*actor.parameters()} == {*q_net.parameters()}


def test_actor_weights_load_into_another_actor_and_are_not_changed_by_noise(make: Make) -> None:
    actor, other = make(), make(seed=1)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    before = {name: tensor.clone() for name, tensor in actor.state_dict().items()}
    actor.act(X)
    assert all(torch.equal(tensor, before[name]) for name, tensor in actor.state_dict().items())
    other.load_state_dict(before)
    other.generator.set_state(actor.generator.get_state())
    assert torch.equal(acts(other), acts(actor))


# --- used through TorchRL ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [[], [3], [2, 5]], ids=str)
def test_an_actor_module_writes_its_out_keys(make: Make, lead: list[int]) -> None:
    actor = make()
    out = actor(TensorDict({"observation": torch.rand(*lead, 4)}, batch_size=lead))
    assert {*actor.out_keys} == {*out.keys()} - {"observation"}
    assert ("log_prob" in actor.out_keys) == hasattr(actor, "log_policy")
    for key in actor.out_keys:
        assert out[key].shape == torch.Size(lead)
        assert not out[key].requires_grad


def test_an_actor_is_greedy_under_every_torchrl_exploration_type_except_random(make: Make) -> None:
    actor = make()
    best = actor.act(X, greedy=True)

    def always_best() -> bool:
        seen = TensorDict({"observation": X}, batch_size=[20])
        return all(torch.equal(actor(seen)["action"], best) for _ in range(20))

    assert exploration_type() is None
    assert always_best() != is_random(actor)
    with set_exploration_type(ExplorationType.RANDOM):
        assert always_best() != is_random(actor)
    for kind in GREEDY:
        with set_exploration_type(kind):
            assert always_best()


def test_a_torchrl_environment_rolls_out_with_an_actor(make: Make) -> None:
    env, actor = TheirGymEnv("CartPole-v1", categorical_action_encoding=True), make()
    env.set_seed(0)
    rollout = env.rollout(30, actor, break_when_any_done=False)
    assert rollout.shape == (30,)
    assert {*actor.out_keys} <= {*rollout.keys()}
    assert all(env.action_spec.contains(action) for action in rollout["action"])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        rollout = env.rollout(30, actor, break_when_any_done=False)
    assert torch.equal(rollout["action"], actor.act(rollout["observation"], greedy=True))


def test_a_torchrl_collector_acts_with_the_updated_weights(make: Make) -> None:
    from torchrl.collectors import Collector

    env, actor = TheirGymEnv("CartPole-v1", categorical_action_encoding=True), make()
    collector = Collector(
        env,
        actor,
        frames_per_batch=10,
        total_frames=20,
        auto_register_policy_transforms=False,
        exploration_type=ExplorationType.DETERMINISTIC,
    )
    for experience in collector:
        assert torch.equal(experience["action"], actor.act(experience["observation"], greedy=True))
        with torch.no_grad():
            for parameter in actor.parameters():
                parameter.neg_()
    collector.shutdown()


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_VALUES)
def test_an_unknown_policy_is_refused(name: str, make_q_net: Callable) -> None:
    with pytest.raises(SettingError, match="q1, min"):
        OF_VALUES[name](q_net=make_q_net(), policy="q2", seed=0)
