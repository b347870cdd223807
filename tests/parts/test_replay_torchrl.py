"""Both replays as TorchRL's replay buffers: they store data of collectors, and sample batches for losses."""

import io
import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.data import ReplayBuffer

from sqn_rl import (
    MLP,
    Dense,
    DQNLoss,
    GymEnv,
    LinearHead,
    NStep,
    OneStep,
    PrioritizedReplay,
    QNet,
    UniformReplay,
)
from sqn_rl.parts.replay.base import RingReplay
from sqn_rl.types import Step

KINDS = {
    "uniform": (UniformReplay, {}),
    "prioritized": (
        PrioritizedReplay,
        {"omega": 0.6, "beta": 0.4, "epsilon": 1e-6, "td_error": "mean", "steps": 100},
    ),
}
ONE_STEP = [
    "observation",
    "action",
    *(("next", key) for key in ("observation", "reward", "terminated", "truncated", "done")),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def make_replay(kind: str = "uniform", **settings: Any) -> RingReplay:
    make, part = KINDS[kind]
    where = {"observation_shape": (4,), "observation_dtype": torch.float32, "frame_stack": 1, "device": "cpu"}
    small = {"capacity": 60, "num_envs": 3, "returns": OneStep(gamma=0.9), "seed": 0}
    return make(**part | where | small | settings)


def rollout(steps: int, num_envs: int = 3, seed: int = 0) -> TensorDict:
    """Random play of CartPole, ``[N, T]``, with a step limit that truncates many of the episodes."""
    env = GymEnv(id="CartPole-v1", kwargs={"max_episode_steps": 15}, num_envs=num_envs, seed=seed)
    torch.manual_seed(seed)
    return env.rollout(steps, break_when_any_done=False, auto_cast_to_device=True)


def equal(these: TensorDict, those: TensorDict, *keys: Any) -> bool:
    return all(torch.equal(these[key], those[key]) for key in keys or ONE_STEP)


# --- storing -----------------------------------------------------------------------------------------------


def test_a_replay_is_a_torchrl_replay_buffer(kind: str) -> None:
    replay = make_replay(kind)
    assert isinstance(replay, ReplayBuffer)
    assert len(replay) == 0
    replay.extend(rollout(12))
    assert (len(replay), replay.write_count, replay.can_sample(8)) == (36, 36, True)
    assert replay.stats()["utilization"] == 0.6
    assert type(replay).__name__ in repr(replay)


def test_extend_returns_the_places_of_the_stored_steps(kind: str) -> None:
    played, replay = rollout(20), make_replay(kind)
    assert played["next", "terminated"].any()
    assert played["next", "truncated"].any()
    place = replay.extend(played)
    assert place.shape == (3, 20)
    assert equal(replay[place], played)
    assert equal(replay[place[2, 7]], played[2, 7])
    assert equal(replay[:], played.transpose(0, 1).reshape(-1))
    assert equal(replay[-3:], played[:, -1])


def test_the_oldest_steps_are_overwritten_first(kind: str) -> None:
    played, replay = rollout(75), make_replay(kind)
    for t in range(0, 75, 5):
        replay.extend(played[:, t : t + 5].clone())
    assert (len(replay), replay.write_count) == (60, 225)
    assert equal(replay[:], played[:, -20:].transpose(0, 1).reshape(-1))
    sample = replay.sample(500)
    assert equal(replay[sample["index"]], sample)


def test_extend_and_add_accept_one_step_and_one_environment() -> None:
    played, three, one = rollout(4), make_replay(), make_replay(num_envs=1)
    assert three.extend(played[:, 0].clone()).shape == (3,)
    assert three.add(played[:, 1].clone()).shape == (3,)
    assert equal(three[:], played[:, :2].transpose(0, 1).reshape(-1))
    assert one.extend(played[0, :2].clone()).shape == (2,)
    assert one.extend(played[:1, 2:3].clone()).shape == (1, 1)
    assert one.add(played[0, 3].clone()).shape == ()
    assert equal(one[:], played[0])


def test_store_and_extend_can_be_mixed(kind: str) -> None:
    env = GymEnv(id="CartPole-v1", num_envs=3, seed=0)
    replay, observation = make_replay(kind, returns=NStep(gamma=0.9, n=3, soft=False)), env.begin()
    for _ in range(2):
        action = torch.ones(3, dtype=torch.int64)
        step = env.advance(action)
        replay.store(observation, action, step)
        observation = step.observation
    no, action = torch.zeros(3, 1, dtype=torch.bool), torch.zeros(3, dtype=torch.int64)
    step = env.advance(action)
    following = {
        "observation": step.next_observation,
        "reward": step.reward,
        "terminated": no,
        "truncated": no,
    }
    replay.extend(TensorDict({"observation": observation, "action": action, "next": following}, [3]))
    assert replay[:]["steps_to_next_obs"].flatten().tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 1]
    assert replay.draw(50).place.unique().numel() == 9


@pytest.mark.parametrize(("truncated", "following"), [(False, 5.0), (True, 9.0)])
def test_a_reset_between_extend_and_store_is_detected(kind: str, truncated: bool, following: float) -> None:
    """``extend`` does not know whether its last step ended an episode: the next observation shows it."""

    def observed(value: float) -> torch.Tensor:
        return torch.full((3, 4), value)

    no, zeros, action = torch.zeros(3, dtype=torch.bool), torch.zeros(3), torch.zeros(3, dtype=torch.int64)
    replay = make_replay(kind, returns=NStep(gamma=0.9, n=3, soft=False))
    last = {"observation": observed(5.0), "reward": zeros, "terminated": no, "truncated": no | truncated}
    replay.extend(TensorDict({"observation": observed(0.0), "action": action, "next": last}, [3]))
    for now, after in ((following, 6.0), (6.0, 7.0)):
        step = Step(observed(after), observed(after), zeros, no, no, no, zeros)
        replay.store(observed(now), action, step)
    assert replay[:3]["next", "observation"].unique().tolist() == [5.0 if truncated else 7.0]
    steps = replay[:]["steps_to_next_obs"].flatten().tolist()
    assert steps == [1 if truncated else 3] * 3 + [2] * 3 + [1] * 3


def test_missing_truncated_is_derived_from_done_and_terminated() -> None:
    played = rollout(20)
    declared, derived = make_replay(), make_replay()
    declared.extend(played.clone())
    derived.extend(played.exclude(("next", "truncated")))
    assert equal(declared[:], derived[:])


# --- returns over several steps ----------------------------------------------------------------------------


def n_step(*pieces: TensorDict) -> TensorDict:
    """The three-step returns of a rollout stored in pieces, oldest first."""
    replay = make_replay(capacity=300, returns=NStep(gamma=0.9, n=3, soft=False))
    for piece in pieces:
        replay.extend(piece.clone())
    return replay[:]


def test_consecutive_pieces_have_the_same_returns_as_the_whole_rollout() -> None:
    played = rollout(40)
    whole = n_step(played)
    assert set(whole["steps_to_next_obs"].flatten().tolist()) == {1, 2, 3}
    assert equal(n_step(*played.split(7, 1)), whole, *ONE_STEP, "steps_to_next_obs")
    assert equal(n_step(*played.unbind(1)), whole, *ONE_STEP, "steps_to_next_obs")


def test_an_n_step_return_reports_the_truncation_of_its_last_step() -> None:
    """Three steps of which the second is truncated: two count, and the last of them was truncated."""
    played = rollout(12, num_envs=1)
    played["next", "terminated"].zero_()
    played["next", "truncated"].zero_()[0, 5] = True
    replay = make_replay(num_envs=1, returns=NStep(gamma=0.9, n=3, soft=False))
    replay.extend(played)
    following = replay[:]["next"]
    assert following["truncated"].flatten().nonzero().flatten().tolist() == [3, 4, 5]
    assert torch.equal(following["done"], following["truncated"])
    assert torch.equal(following["observation"][4], played["next", "observation"][0, 5])


def test_no_n_step_return_crosses_a_gap() -> None:
    """Steps are missing between two pieces, in all environments or in one."""
    played = rollout(30)
    for environments in ([0, 1, 2], [1]):
        second = played[:, 10:20].clone()
        second[environments] = played[environments, 20:]
        steps = n_step(played[:, :10], second)["steps_to_next_obs"].reshape(20, 3)
        alone = [n_step(piece)["steps_to_next_obs"].reshape(10, 3) for piece in (played[:, :10], second)]
        whole = n_step(played[:, :20])["steps_to_next_obs"].reshape(20, 3)
        cut = torch.tensor([i in environments for i in range(3)])
        assert torch.equal(steps, torch.where(cut, torch.cat(alone), whole))
        assert not torch.equal(torch.cat(alone), whole)


def test_a_difference_in_one_feature_is_a_gap() -> None:
    played = rollout(9)
    played["observation"][1, 5, 2] += 1e-3
    steps = n_step(played)["steps_to_next_obs"].reshape(9, 3)
    assert steps[2:6].tolist() == [[3, 3, 3], [3, 2, 3], [3, 1, 3], [3, 3, 3]]


def test_shuffled_steps_have_almost_only_one_step_returns() -> None:
    played = rollout(20)
    steps = n_step(played[:, torch.randperm(20, generator=torch.Generator().manual_seed(0))])
    assert steps["steps_to_next_obs"].double().mean() < 1.1


# --- stacks of frames --------------------------------------------------------------------------------------


def stacks(ends: list[int], steps: int = 12) -> TensorDict:
    """Stacks of three bytes from one environment, ``[1, T]``, with new games after ``ends``."""
    frames, seen, following = torch.arange(1, 100, dtype=torch.uint8), [], []
    stack, count = torch.tensor([0, 0, 1], dtype=torch.uint8), 1
    for t in range(steps):
        seen.append(stack)
        stack = torch.cat([stack[1:], frames[count : count + 1]])
        following.append(stack)
        if t in ends:
            count += 1
            stack = torch.tensor([0, 0, count + 1], dtype=torch.uint8)
        count += 1
    done = torch.tensor([t in ends for t in range(steps)]).reshape(1, steps, 1)
    columns = {"observation": torch.stack(following)[None], "reward": torch.zeros(1, steps, 1)}
    after = columns | {"terminated": done, "truncated": torch.zeros_like(done), "done": done}
    action = torch.zeros(1, steps, dtype=torch.int64)
    return TensorDict({"observation": torch.stack(seen)[None], "action": action, "next": after}, [1, steps])


def stacked(**settings: Any) -> RingReplay:
    frames = {"observation_shape": (3,), "observation_dtype": torch.uint8, "frame_stack": 3}
    return make_replay(num_envs=1, **frames, **settings)


@pytest.mark.parametrize("pieces", [1, 2, 5, 12])
def test_frame_stacks_are_restored_across_a_lost_life(pieces: int) -> None:
    played, replay = stacks(ends=[4, 7]), stacked()
    played["next", "terminated"][0, 2] = True  # a lost life: the game continues, and so does the stack
    for piece in played.split(pieces, 1):
        replay.extend(piece.clone())
    assert equal(replay[:], played[0])


def test_a_frame_stack_from_mid_episode_is_refused() -> None:
    replay = stacked()
    with pytest.raises(ValueError, match="expected zeros for the frames from before"):
        replay.extend(stacks(ends=[])[:, 3:])
    assert len(replay) == 0


# --- sampling ----------------------------------------------------------------------------------------------


def test_a_sample_has_the_keys_and_shapes_that_losses_read(kind: str) -> None:
    replay = make_replay(kind)
    replay.extend(rollout(20))
    sample = replay.sample(8)
    assert sample.shape == (8,)
    shapes = {
        key: tuple(value.shape[1:]) for key, value in sample.items(include_nested=True, leaves_only=True)
    }
    weight = {"priority_weight": ()} if kind == "prioritized" else {}
    flags = {("next", key): (1,) for key in ("reward", "terminated", "truncated", "done")}
    seen = {"observation": (4,), ("next", "observation"): (4,)}
    assert shapes == seen | flags | weight | {"action": (), "index": (), "steps_to_next_obs": (1,)}
    assert replay.sample(8, return_info=True)[1].keys() == {"index"} | weight.keys()


def test_sample_returns_the_same_transitions_as_draw(kind: str) -> None:
    one, other = make_replay(kind), make_replay(kind)
    for replay in (one, other):
        replay.extend(rollout(20))
    sample, batch = one.sample(50), other.draw(50)
    assert torch.equal(sample["index"], batch.place)
    assert torch.equal(sample["next", "observation"], batch.next_observation)
    assert batch.weight is None or torch.equal(sample["priority_weight"], batch.weight)


@pytest.mark.parametrize("shape", [(8,), (8, 1)])
def test_td_errors_in_a_sample_update_its_priorities(shape: tuple[int, ...]) -> None:
    replay = make_replay("prioritized", omega=1.0, epsilon=1.0)
    replay.extend(rollout(20))
    sample = replay.sample(8)
    sample["td_error"] = torch.zeros(shape)
    sample["td_error"][3] = 1e6
    replay.update_tensordict_priority(sample)
    assert set(replay.sample(1000)["index"].tolist()) == {sample["index"][3].item()}


@pytest.mark.parametrize("trailing", [0, 1, 2])
def test_td_errors_in_the_stored_steps_set_their_priorities(trailing: int) -> None:
    """One TD error for each step, or one for each network."""
    replay, played = make_replay("prioritized", omega=1.0, epsilon=1.0), rollout(10)
    played["td_error"] = torch.zeros(3, 10, *[trailing] * (trailing > 0))
    played["td_error"][1, 4] = 1e6
    replay.extend(played.clone(), update_priority=False)
    assert len(replay.sample(1000)["index"].unique()) == 30
    place = replay.extend(played)
    assert set(replay.sample(1000)["index"].tolist()) == {place[1, 4].item()}


@pytest.mark.parametrize("steps", [20, 25, 60])
def test_late_td_errors_of_a_sample_do_not_change_priorities_of_new_steps(steps: int) -> None:
    """One call overwrites the transitions of the sample; of 25 or 60 new steps it overwrites some, too."""
    replay = make_replay("prioritized", omega=1.0, epsilon=1.0)
    replay.extend(rollout(20))
    sample, played = replay.sample(500), rollout(steps, seed=1)
    played["td_error"] = torch.arange(3.0 * steps).reshape(3, steps)
    place = replay.extend(played)[:, -20:]
    expected = 1 + played["td_error"][:, -20:]
    np.testing.assert_array_equal(replay.sampler.tree.value[place], expected)
    sample["td_error"] = torch.full((500,), 1e6)
    replay.update_tensordict_priority(sample)  # too late
    np.testing.assert_array_equal(replay.sampler.tree.value[place], expected)
    assert replay.sampler.tree.total == pytest.approx(float(expected.sum()))


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("join", ["mean", "max"])
def test_a_loss_called_on_a_sample_sets_the_same_priorities_as_our_own_loop(join: str, networks: int) -> None:
    torch.manual_seed(0)
    parts = {"layer": Dense, "encoder": partial(MLP, hidden=[8]), "head": LinearHead}
    shapes = {"observation_shape": (4,), "n_actions": 2, "members": networks, "shared_encoder": False}
    loss = DQNLoss(q_net=QNet(**parts, **shapes), temperature=None, gamma=0.9, seed=0)
    theirs, ours = (make_replay("prioritized", td_error=join) for _ in range(2))
    for replay in (theirs, ours):
        replay.extend(rollout(20))
    sample, batch = theirs.sample(16), ours.draw(16)
    loss(sample)
    theirs.update_tensordict_priority(sample)
    ours.update_priority(batch.place, loss.compute(batch).td_error)
    wanted = ours._sampler.tree.value
    np.testing.assert_allclose(theirs._sampler.tree.value, wanted)
    theirs.update_tensordict_priority(sample.reshape(4, 4))
    np.testing.assert_allclose(theirs._sampler.tree.value, wanted)


def test_uniform_replay_accepts_priority_updates() -> None:
    replay = make_replay()
    replay.extend(rollout(5))
    sample = replay.sample(4)
    sample["td_error"] = torch.ones(4)
    replay.update_tensordict_priority(sample)
    replay.update_priority(sample["index"], sample["td_error"])


# --- state -------------------------------------------------------------------------------------------------


def make_used_replay(kind: str, seed: int = 0) -> RingReplay:
    replay = make_replay(kind, seed=seed)
    replay.extend(rollout(33, seed=seed))
    for _ in range(5):
        batch = replay.draw(8)
        replay.update_priority(batch.place, batch.reward * batch.place)
    return replay


def continue_identically(these: RingReplay, those: RingReplay) -> bool:
    """Whether both draw the same batches from here, given the same steps and priorities."""
    for t in range(40):
        for replay in (these, those):
            replay.extend(rollout(1, seed=t))
        one, other = these.draw(16), those.draw(16)
        if not all(a is b is None or torch.equal(a, b) for a, b in zip(one, other, strict=True)):
            return False
        for replay in (these, those):
            replay.update_priority(one.place, one.reward * one.place)
    return len(these) == len(those) and these.write_count == those.write_count


def test_a_replay_restored_from_its_state_continues_identically(kind: str) -> None:
    replay, other, file = make_used_replay(kind), make_used_replay(kind, seed=1), io.BytesIO()
    torch.save(replay.state_dict(), file)
    file.seek(0)
    assert not continue_identically(make_used_replay(kind), other)
    other = make_used_replay(kind, seed=1)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert continue_identically(replay, other)


def test_a_pickled_replay_continues_identically(kind: str) -> None:
    assert continue_identically(make_used_replay(kind), pickle.loads(pickle.dumps(make_used_replay(kind))))


def test_the_state_of_a_ring_of_another_capacity_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="places was 63 in the replay saved; here it is 93"):
        make_replay(kind, capacity=90).load_state_dict(make_used_replay(kind).state_dict())


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "num_envs"), [((2,), 3), ((2, 3), 3), ((3, 2, 1), 3), ((), 3), ((2, 5), 1)]
)
def test_a_batch_shape_that_does_not_fit_the_environments_is_refused(
    shape: tuple[int, ...], num_envs: int
) -> None:
    replay, played = make_replay(num_envs=num_envs), rollout(10).reshape(-1)[: torch.Size(shape).numel()]
    with pytest.raises(ValueError, match=rf"for {num_envs} environment"):
        replay.extend(played.reshape(shape))


@pytest.mark.parametrize(
    "key", ["observation", "action", ("next", "observation"), ("next", "reward"), ("next", "terminated")]
)
def test_a_missing_key_is_refused_by_name(key: Any) -> None:
    with pytest.raises(KeyError, match=key if isinstance(key, str) else key[1]):
        make_replay().extend(rollout(3).exclude(key))


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "action",
            lambda a: torch.nn.functional.one_hot(a, 2),
            r"action: \[3, 4, 2\] torch.int64, expected \[3, 4\]",
        ),
        ("action", lambda a: a.float(), "expected .* torch.int64"),
        ("observation", lambda o: o.double(), r"torch.float64, expected \[3, 4, 4\] torch.float32"),
        ("observation", lambda o: o[..., :3], r"\[3, 4, 3\] .* expected \[3, 4, 4\]"),
        (("next", "terminated"), lambda d: d.float(), "expected .* torch.bool"),
    ],
)
def test_a_value_of_the_wrong_shape_or_dtype_is_refused(key: Any, change: Any, message: str) -> None:
    replay, played = make_replay(), rollout(4)
    with pytest.raises(ValueError, match=message):
        replay.extend(played.set(key, change(played[key])))
    assert len(replay) == 0


@pytest.mark.parametrize("index", [63, -1, torch.tensor([0, 40]), torch.tensor([True] * 9)])
def test_an_index_without_a_transition_is_refused(index: Any) -> None:
    replay = make_replay()
    replay.extend(rollout(3))
    with pytest.raises(IndexError, match="expected places that hold a transition"):
        replay[index]


@pytest.mark.parametrize(
    "call",
    [
        lambda replay, _: replay.empty(),
        lambda replay, path: replay.dumps(path),
        lambda replay, path: replay.loads(path),
        lambda replay, _: replay.set_("action", torch.zeros(9)),
        lambda replay, _: replay.__setitem__(0, replay[0]),
        lambda replay, _: replay.query(),
    ],
)
def test_an_operation_that_a_ring_does_not_support_is_refused(call: Any, tmp_path: Any) -> None:
    replay = make_replay()
    replay.extend(rollout(3))
    with pytest.raises(NotImplementedError, match="a ring is written by store and extend"):
        call(replay, tmp_path)
