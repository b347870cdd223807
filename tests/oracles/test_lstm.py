"""Memory: what is replayed from a stored state is what acted; from a zero state it is not."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from sqn_rl import MLP
from sqn_rl.parts.encoder.lstm import LSTM
from sqn_rl.parts.memory import Memory

B, T, S, A, H = 3, 40, 2, 4, 16


@pytest.fixture
def lstm() -> LSTM:
    torch.manual_seed(0)
    encoder = partial(MLP, hidden=[8])
    return LSTM(encoder=encoder, units=H, observation_shape=(S,), n_actions=A, layer=nn.Linear)


class Played:
    """T random steps of B environments, of which some end: the memory before each step, and its features."""

    def __init__(self, lstm: LSTM, ends: bool) -> None:
        torch.manual_seed(1)
        memory = Memory.empty(B, lstm.state_size)
        self.observation = torch.randn(B, T, S)
        self.memories, features, self.ended = list[Memory](), list[Tensor](), torch.rand(B, T) < 0.2 * ends
        for t in range(T):
            self.memories.append(memory)
            feature, state = lstm(self.observation[:, t], memory)
            features.append(feature)
            action, reward = torch.randint(A, (B,)), torch.randn(B)
            memory = memory.after(state, action, reward, self.ended[:, t])
        self.feature = torch.stack(features, 1)

    def replayed(self, lstm: LSTM, begin: int, state: Tensor) -> Tensor:
        """Features from a step on, unrolled from this state, ``[B, T - begin, H]``."""
        action, reward = (
            torch.stack([getattr(each, name) for each in self.memories[begin:]], 1)
            for name in ("action", "reward")
        )
        return lstm.unroll(self.observation[:, begin:], action, reward, state)[0]


@torch.no_grad()
def test_replayed_from_the_stored_state_is_what_acted(lstm: LSTM) -> None:
    played = Played(lstm, ends=False)
    for begin in (0, 10, 33):
        features = played.replayed(lstm, begin, played.memories[begin].state)
        torch.testing.assert_close(features, played.feature[:, begin:], rtol=0, atol=1e-6)


@torch.no_grad()
def test_from_a_zero_state_it_is_not_and_burn_in_shrinks_the_difference(lstm: LSTM) -> None:
    played = Played(lstm, ends=False)
    features = played.replayed(lstm, 10, torch.zeros(B, lstm.state_size))
    difference_T = (features - played.feature[:, 10:]).abs().amax((0, 2))
    assert difference_T[0] > 1e-2
    assert difference_T[10] < difference_T[0] / 10
    assert difference_T[20] < difference_T[10] / 10


@torch.no_grad()
def test_nothing_is_remembered_across_episodes(lstm: LSTM) -> None:
    played = Played(lstm, ends=True)
    assert played.ended.any()
    for t in range(1, T):
        over = played.ended[:, t - 1]
        for column, empty in zip(played.memories[t], Memory.empty(B, lstm.state_size), strict=True):
            assert torch.equal(column[over], empty[over])
            assert not torch.equal(column[~over], empty[~over]) or over.all()


@torch.no_grad()
def test_the_previous_action_and_reward_are_inputs(lstm: LSTM) -> None:
    memory, observation = Memory.empty(B, lstm.state_size), torch.randn(B, S)
    nothing = lstm(observation, memory)[0]
    others = [
        memory._replace(action=torch.zeros(B, dtype=torch.int64)),
        memory._replace(action=torch.ones(B, dtype=torch.int64)),
        memory._replace(reward=torch.ones(B)),
    ]
    features = [nothing, *(lstm(observation, other)[0] for other in others)]
    for one in range(4):
        for other in range(one):
            assert not torch.allclose(features[one], features[other], atol=1e-4)
