"""Evaluation: every environment plays its quota of full games, and the actor is as it was."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from sqn_rl import BoltzmannActor, FixedTemperature, GymEnv, Step, evaluate
from sqn_rl.evaluation import Evaluation


class Games:
    """Environment i plays games of ``lengths[i]`` steps; each step scores 1, and is learned from as 0."""

    n_actions = 2

    def __init__(self, *lengths: int) -> None:
        self.lengths, self.num_envs = torch.tensor(lengths), len(lengths)

    def begin(self) -> Tensor:
        self.at = torch.zeros_like(self.lengths)
        return torch.zeros(self.num_envs, 1)

    def send(self, action: Tensor) -> None:
        pass

    def receive(self) -> Step:
        self.at += 1
        ended = self.at == self.lengths
        self.at[ended] = 0
        seen, zero = torch.zeros(self.num_envs, 1), torch.zeros(self.num_envs)
        return Step(seen, seen, zero, ended, ~ended & False, ended, torch.ones(self.num_envs))


STILL = SimpleNamespace(
    device=torch.device("cpu"),
    act=lambda observation, greedy, generator: torch.zeros(len(observation), dtype=torch.int64),
)


@pytest.mark.parametrize(
    ("episodes", "quota"), [(1, (1, 0, 0)), (3, (1, 1, 1)), (8, (3, 3, 2)), (20, (7, 7, 6))]
)
def test_short_games_are_not_favoured(episodes: int, quota: tuple[int, ...]) -> None:
    lengths = (2, 50, 9)
    result = evaluate(STILL, Games(*lengths), episodes=episodes, greedy=True, seed=0)
    expected = [length for length, share in zip(lengths, quota, strict=True) for _ in range(share)]
    assert sorted(result.lengths) == sorted(expected)
    assert result.returns == result.lengths  # the game's own score, not the reward


def test_what_is_reported() -> None:
    result = Evaluation(returns=[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0], lengths=[1] * 8, greedy=True)
    assert result.mean == 121 / 8
    assert result.std == pytest.approx(np.std(result.returns))
    assert result.iqm == 3.5  # of 2, 3, 4, 5: the middle half
    row = result.row()
    assert (row["episodes"], row["greedy"], row["returns"]) == (8, True, result.returns)


@pytest.mark.parametrize("greedy", [True, False])
def test_nothing_of_the_actor_changes_and_the_seed_decides(make_q_net, greedy: bool) -> None:
    q_net = make_q_net(n_actions=2)
    actor = BoltzmannActor(q_net=q_net, temperature=FixedTemperature(alpha=1.0), policy="q1", seed=0)
    weights, drawing, everybody = actor.state_dict(), actor.generator.get_state(), torch.get_rng_state()
    weights = {name: tensor.clone() for name, tensor in weights.items()}

    def play(seed: int) -> list[float]:
        env = GymEnv(id="CartPole-v1", num_envs=2, seed=5, training=False)
        return evaluate(actor, env, episodes=6, greedy=greedy, seed=seed).returns

    first = play(seed=1)
    assert play(seed=1) == first
    assert (play(seed=2) == first) == greedy
    assert torch.equal(actor.generator.get_state(), drawing)
    assert torch.equal(torch.get_rng_state(), everybody)
    assert actor.training
    for name, tensor in actor.state_dict().items():
        assert torch.equal(tensor, weights[name])
