"""A player holds the memory of an actor until the episode ends."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl.parts.memory import Memory
from sqn_rl.training.player import Player, random_actions
from sqn_rl.types import Step

N = 3


class Counting:
    """Its state counts the steps of the episode; its action is the previous one plus one."""

    device, state_size = torch.device("cpu"), 1

    def act(self, observation: Tensor, **_: Any) -> Tensor:
        raise AssertionError("an actor with memory is given it")

    def act_from(self, observation: Tensor, memory: Memory, **_: Any) -> tuple[Tensor, Tensor]:
        self.given = memory
        return memory.action + 1, memory.state + 1

    def mean_scores_from(self, observation: Tensor, memory: Memory) -> Tensor:
        return memory.state.expand(-1, 5)


class Stateless:
    device = torch.device("cpu")

    def act(self, observation: Tensor, **options: Any) -> Tensor:
        self.options = options
        return torch.arange(len(observation))


def step(ended: list[int], reward: float = 0.0) -> Step:
    observation, flags = torch.zeros(N, 1), torch.zeros(N, dtype=torch.bool)
    flags[ended] = True
    reward_N = torch.full((N,), reward)
    return Step(observation, observation, reward_N, flags, flags & False, flags, reward_N.double())


def test_the_memory_of_a_player_lasts_until_the_episode_ends() -> None:
    actor = Counting()
    player = Player(actor, N)
    for t, ended in enumerate([[], [], [1]]):
        action = player.act(torch.zeros(N, 1))
        assert actor.given.state.tolist() == [[t]] * N
        player.record(action, step(ended, reward=t + 1))
    assert player.memory is not None
    assert player.memory.action.tolist() == [2, -1, 2]
    assert player.memory.reward.tolist() == [3, 0, 3]
    player.begin([2])
    assert player.memory.action.tolist() == [2, -1, -1]
    assert player.memory.state.flatten().tolist() == [3, 0, 0]
    player.begin()
    assert player.memory.state.tolist() == [[0]] * N


def test_a_player_remembers_the_action_taken_and_not_the_one_chosen() -> None:
    player = Player(Counting(), N)
    player.act(torch.zeros(N, 1))
    player.record(torch.tensor([7, 8, 9]), step([]))
    assert player.memory is not None
    assert player.memory.action.tolist() == [7, 8, 9]


def test_a_recorded_step_has_the_memory_from_which_its_action_was_chosen() -> None:
    player = Player(Counting(), N)
    for reward in (1.0, 2.0):
        seen = player.record(player.act(torch.zeros(N, 1)), step([2], reward))
    assert seen.memory is not None
    assert seen.memory.tolist() == [[1, 0, 1], [1, 0, 1], [0, -1, 0]]  # state, action, reward
    for column, own in zip(
        Memory.unpacked(seen.memory), ([[1], [1], [0]], [0, 0, -1], [1, 1, 0]), strict=True
    ):
        assert column.tolist() == own
    scores = player.scores(torch.zeros(N, 1))
    assert scores is not None
    assert scores[:, 0].tolist() == [2, 2, 0]


def test_a_player_is_restored_from_its_state() -> None:
    players = [Player(Counting(), N) for _ in range(2)]
    players[0].record(players[0].act(torch.zeros(N, 1)), step([0], reward=2.0))
    players[1].load_state_dict(players[0].state_dict())
    for one, other in zip(*(player.state_dict().values() for player in players), strict=True):
        assert torch.equal(one, other)


def test_a_player_adds_no_memory_to_an_actor_without_one() -> None:
    actor = Stateless()
    player = Player(actor, N)
    assert player.act(torch.zeros(N, 1), greedy=True).tolist() == [0, 1, 2]
    assert actor.options == {"greedy": True}
    result = step([0])
    assert player.record(torch.zeros(N), result) is result
    assert player.scores(torch.zeros(N, 1)) is None
    player.begin([1])
    assert player.state_dict() == {}


@pytest.mark.parametrize("allowed", [None, [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0]]])
def test_random_actions_are_uniform_over_the_allowed_actions(allowed: list[list[int]] | None) -> None:
    mask = None if allowed is None else torch.tensor(allowed).bool()
    env = SimpleNamespace(n_actions=4, num_envs=N, action_mask=mask)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([random_actions(env, generator) for _ in range(2000)])
    assert drawn.dtype == torch.int64
    share = torch.nn.functional.one_hot(drawn, 4).double().mean(0)
    uniform = torch.ones(N, 4).double() if mask is None else mask.double()
    torch.testing.assert_close(share, uniform / uniform.sum(-1, keepdim=True), rtol=0, atol=0.05)
    assert share[uniform == 0].sum() == 0
