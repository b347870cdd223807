"""Recurrent networks: Q replayed from a stored state equals Q while acting; from a zero state it does not."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from sqn_rl import (
    MLP,
    BoltzmannActor,
    Dense,
    FixedTemperature,
    GreedyActor,
    LinearHead,
    LSTMQNet,
    NStep,
    Player,
    SequenceReplay,
    WiringError,
)
from sqn_rl.parts.memory import Memory, recalling
from sqn_rl.types import Batch, Sequences

N, A, H, LENGTH, STEPS = 3, 5, 8, 6, 120


@pytest.fixture(autouse=True)
def float32() -> None:
    """The dtype in which memories are stored."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


def make_q_net(**settings: Any) -> LSTMQNet:
    sizes = {"observation_shape": (2,), "n_actions": A, "units": H, "members": 2, "shared_encoder": False}
    parts = {"encoder": partial(Scaled, hidden=[8]), "head": LinearHead, "layer": Dense}
    return LSTMQNet(**parts | sizes | settings)


class Scaled(MLP):
    """An MLP that scales its observations, which are large numbers."""

    def forward(self, observation: Tensor) -> Tensor:
        return super().forward(torch.sin(observation.double() * 0.7).float())


def make_replay(q_net: LSTMQNet, **settings: Any) -> SequenceReplay:
    sizes = {"num_envs": N, "observation_shape": (2,), "observation_dtype": torch.float32, "frame_stack": 1}
    sampling = {"eta": 0.9, "omega": 0.0, "beta": 1.0, "epsilon": 1e-6, "td_error": "mean", "steps": 1}
    lengths = {"capacity": N * STEPS, "length": LENGTH, "burn_in": 3, "stride": 4}
    returns = NStep(gamma=0.9, n=2, soft=False)
    rest = {"q_net": q_net, "returns": returns, "seed": 0, "device": "cpu"}
    return SequenceReplay(**sizes | sampling | lengths | rest | settings)


class Played:
    """Many steps of N environments, and Q of the recurrent network while acting, by observation number."""

    def __init__(
        self, q_net: LSTMQNet, make_games: Callable[..., Any], ending: float, **settings: Any
    ) -> None:
        actor = GreedyActor(q_net=q_net, policy="q1", seed=0)
        player, games = Player(actor, N), make_games(N, ending)
        self.replay, self.q = make_replay(q_net, **settings), dict[float, Tensor]()
        for _ in range(STEPS):
            scores = player.scores(games.observation)
            assert scores is not None
            self.q |= dict(zip(games.observation[:, 0].tolist(), scores, strict=True))
            player.act(games.observation)
            observation, action, step = games.play()  # actions are random, as in a warm-up
            self.replay.store(observation, action, player.record(action, step))

    def acted(self, batch: Batch, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Q of the network while acting at these steps, ``[B, A]``; and whether it acted there, ``[B]``."""
        assert batch.sequences is not None
        number = batch.sequences.observation.flatten(0, 1)[steps][:, 0].tolist()
        known = torch.tensor([each in self.q for each in number])
        return torch.stack([self.q.get(each, torch.zeros(A)) for each in number]), known


@torch.no_grad()
def recalled(q_net: LSTMQNet, batch: Batch, steps: Tensor) -> Tensor:
    with recalling(batch.sequences, q_net):
        return q_net.first(steps)


@pytest.mark.parametrize("shared_encoder", [False, True])
@pytest.mark.parametrize("ending", [0.0, 0.05])
def test_q_replayed_from_the_stored_state_equals_q_while_acting(
    make_games: Callable[..., Any], ending: float, shared_encoder: bool
) -> None:
    q_net = make_q_net(shared_encoder=shared_encoder)
    played = Played(q_net, make_games, ending)
    batch = played.replay.draw(100)
    for steps in (batch.observation, batch.next_observation):
        q_BA, known_B = played.acted(batch, steps)
        assert known_B.float().mean() > 0.5  # not the last observations of episodes
        torch.testing.assert_close(recalled(q_net, batch, steps)[known_B], q_BA[known_B], rtol=0, atol=1e-6)


def forgetting(batch: Batch) -> Batch:
    """The batch, with a zero state at the beginning of each sequence."""
    assert batch.sequences is not None
    return batch._replace(sequences=batch.sequences._replace(state=batch.sequences.state * 0))


def test_q_replayed_from_a_zero_state_differs_and_burn_in_shrinks_the_difference(
    make_games: Callable[..., Any],
) -> None:
    q_net = make_q_net()
    differences = []
    for burn_in in (0, 4, 16):
        played = Played(q_net, make_games, 0.0, burn_in=burn_in)
        batch = forgetting(played.replay.draw(100))
        q_BA, _ = played.acted(batch, batch.observation)
        difference = (recalled(q_net, batch, batch.observation) - q_BA).abs().amax(-1)
        assert batch.sequences is not None
        many = batch.sequences.action.shape[1]
        burnt = batch.sequences.burn_in[batch.observation // many] == burn_in
        first = burnt & (batch.observation % many == burn_in)  # the first step that is learned from
        differences.append(difference[first].max().item())
    assert differences[0] > 1e-2
    assert differences[1] < differences[0] / 2
    assert differences[2] < differences[1] / 3


def test_burn_in_steps_get_no_gradient_and_episode_starts_have_no_burn_in(
    make_games: Callable[..., Any],
) -> None:
    q_net = make_q_net()
    batch = Played(q_net, make_games, 0.0).replay.draw(100)
    assert batch.sequences is not None
    many = batch.sequences.action.shape[1]

    def touched_by(steps: Tensor) -> Tensor:
        """The steps that receive a gradient, ``[Q, T]`` bool."""
        assert batch.sequences is not None
        reward = batch.sequences.reward.clone().requires_grad_()
        with recalling(batch.sequences._replace(reward=reward), q_net):
            q_net.values(steps).sum().backward()
        assert reward.grad is not None
        return reward.grad != 0

    burnt, touched = batch.sequences.burn_in == 3, touched_by(batch.observation)
    later = touched_by(batch.observation[batch.observation % many >= 3])
    assert burnt.any()
    assert not burnt.all()
    assert not touched[burnt, :3].any()
    assert touched[burnt, 3].all()
    assert touched[~burnt, :3].all()
    assert not later[burnt, :3].any()
    assert later[~burnt, :3].all()  # through time
    learned = torch.bincount(batch.observation, minlength=100 * many).view(100, many)
    whole = learned.sum(-1) >= LENGTH  # others end with the newest step
    assert whole[burnt].float().mean() > 0.8
    assert learned[burnt & whole].unique(dim=0).tolist() == [[0] * 3 + [1] * LENGTH + [0] * 2]
    assert learned[~burnt & whole].unique(dim=0).tolist() == [[1] * (3 + LENGTH) + [0] * 2]


def test_the_previous_action_and_reward_are_inputs_and_large_rewards_are_clamped() -> None:
    q_net = make_q_net(observation_shape=(2,))
    memory, observation = Memory.empty(1, q_net.state_size), torch.randn(1, 2)
    others = [
        memory,
        memory._replace(action=torch.tensor([0])),
        memory._replace(action=torch.tensor([1])),
        memory._replace(reward=torch.tensor([0.5])),
        memory._replace(reward=torch.tensor([-1.0])),
    ]
    values = []
    for other in others:
        with torch.no_grad(), q_net.remembering(observation, other) as recall:
            values.append(q_net.first(recall.steps))
    for one in range(len(others)):
        for other in range(one):
            assert not torch.allclose(values[one], values[other], atol=1e-5)
    with (
        torch.no_grad(),
        q_net.remembering(observation, memory._replace(reward=torch.tensor([-9.0]))) as recall,
    ):
        assert torch.equal(q_net.first(recall.steps), values[-1])


def test_with_clipped_rewards_the_input_is_the_sign_of_the_previous_reward() -> None:
    q_net = make_q_net(observation_shape=(2,), clip_reward=True)
    memory, observation = Memory.empty(1, q_net.state_size), torch.randn(1, 2)

    def values(reward: float) -> torch.Tensor:
        before = memory._replace(reward=torch.tensor([reward]))
        with torch.no_grad(), q_net.remembering(observation, before) as recall:
            return q_net.first(recall.steps)

    for reward, sign in ((0.3, 1.0), (7.0, 1.0), (-0.2, -1.0)):
        assert torch.equal(values(reward), values(sign))
    assert not torch.allclose(values(0.0), values(1.0), atol=1e-5)


def test_a_recurrent_actor_acts_greedily_or_draws_from_the_given_generator() -> None:
    actor = BoltzmannActor(q_net=make_q_net(), temperature=FixedTemperature(alpha=1.0), policy="q1", seed=0)
    observation, memory, before = (
        torch.randn(50, 2),
        Memory.empty(50, actor.state_size),
        actor.generator.get_state(),
    )

    def act(greedy: bool = False) -> list[int]:
        generator = torch.Generator().manual_seed(7)
        return actor.act_from(observation, memory, greedy=greedy, generator=generator)[0].tolist()

    assert act() == act()
    assert len({*act()}) == A
    assert act(greedy=True) == actor.mean_scores_from(observation, memory).argmax(-1).tolist()
    assert torch.equal(actor.generator.get_state(), before)


def test_each_network_has_a_separate_state_unless_the_encoder_is_shared() -> None:
    for shared, size in ((False, 2 * 2 * H), (True, 2 * H)):
        q_net = make_q_net(shared_encoder=shared)
        assert q_net.state_size == size
        state = torch.zeros(1, size)
        state[:, -1] = 5.0  # a cell of the last network
        sequences = Sequences(
            torch.zeros(1, 1, 2),
            torch.tensor([[-1]]),
            torch.zeros(1, 1),
            state,
            torch.zeros(1, dtype=torch.int64),
        )
        with torch.no_grad():
            values, others = [], []
            for each in (sequences, sequences._replace(state=state * 0)):
                with q_net.recalling(each) as recall:
                    values.append(q_net.values(recall.steps))
                    others.append(recall.after)
        changed = (values[0] != values[1]).any(-1).flatten().tolist()
        assert changed == [shared, True]
        assert others[0].shape == (1, size)


def test_values_without_memory_raise_an_error_that_names_the_player() -> None:
    q_net = make_q_net()
    with pytest.raises(WiringError, match=r"remembers the episode; act by sqn_rl\.Player"):
        q_net.values(torch.zeros(1, 2))
