"""The policy actor: any encoder, the Q-network's key, and no parameters shared with the Q-network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from sqn_rl import MLP, Dense, NoisyDense, PolicyActor, WiringError
from sqn_rl.functional import entropy


class Plain(nn.Sequential):
    """An encoder as a user would write it: one network, ``[B, *S]`` → ``[B, F]``."""

    def __init__(self, *, observation_shape: tuple[int, ...], layer: Any) -> None:
        super().__init__(nn.Flatten(), nn.Linear(*observation_shape, 6), nn.Tanh())
        self.out_features = 6


ENCODERS = {"batched": partial(MLP, hidden=[6]), "none": partial(MLP, hidden=[]), "plain": Plain}
LAYERS = {
    "dense": Dense,
    "noisy": partial(NoisyDense, sigma=0.5),
    "plain": lambda in_features, out_features, members: nn.Linear(in_features, out_features),
}


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Callable[..., nn.Module]:
    return ENCODERS[request.param]


@pytest.mark.parametrize("layer", LAYERS)
def test_every_encoder_and_layer_produces_a_normalised_policy(
    encoder: Any, layer: str, make_q_net: Callable
) -> None:
    actor = PolicyActor(q_net=make_q_net(), encoder=encoder, layer=LAYERS[layer], n_actions=3, seed=0)
    observation = torch.rand(7, 4)
    assert actor.act(observation).shape == (7,)
    log_pi_BA = actor.log_policy(observation)
    logit_BA = actor.logits(observation)
    assert logit_BA.requires_grad
    torch.testing.assert_close(logit_BA.detach().log_softmax(-1), log_pi_BA)
    torch.testing.assert_close(log_pi_BA.exp().sum(-1), torch.ones(7))
    assert torch.equal(actor.act(observation, greedy=True), log_pi_BA.argmax(-1))


def test_a_policy_actor_module_reads_the_q_networks_key_and_writes_log_prob(make_q_net: Callable) -> None:
    q_net = make_q_net(in_keys=["pixels"])
    actor = PolicyActor(q_net=q_net, encoder=ENCODERS["batched"], layer=Dense, n_actions=3, seed=0)
    out = actor(TensorDict({"pixels": torch.rand(2, 5, 4)}, batch_size=[2, 5]))
    log_pi: Tensor = actor.log_policy(out["pixels"].view(10, 4)).view(2, 5, 3)
    torch.testing.assert_close(out["log_prob"], log_pi.gather(-1, out["action"].unsqueeze(-1)).squeeze(-1))
    torch.testing.assert_close(out["entropy"], entropy(log_pi))


def test_a_policy_actor_shares_no_parameters_with_the_q_network(make_q_net: Callable) -> None:
    q_net = make_q_net()
    actor = PolicyActor(q_net=q_net, encoder=ENCODERS["batched"], layer=Dense, n_actions=3, seed=0)
    assert not {*actor.parameters()} & {*q_net.parameters()}
    assert [name.partition(".")[0] for name in actor.state_dict()] == ["policy_net"] * 4


def test_an_encoder_without_out_features_is_refused(make_q_net: Callable) -> None:
    def encoder(**_: Any) -> nn.Module:
        return nn.Flatten()

    with pytest.raises(WiringError, match="Flatten has no `out_features`, which the policy needs to know"):
        PolicyActor(q_net=make_q_net(), encoder=encoder, layer=Dense, n_actions=3, seed=0)
