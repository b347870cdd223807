"""Our Q-network, actor, loss and target updater in a plain TorchRL script."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import MultiStepTransform, check_env_specs
from torchrl.objectives import LossModule

from sqn_rl import functional as F

SCRIPT = Path(__file__).parents[2] / "docs" / "walkthroughs" / "plain_torchrl.py"

# torchrl 0.14.1 deprecates classes of its own while it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Creating .*WeightUpdater which inherits:DeprecationWarning")


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.slow
def test_the_plain_torchrl_script_learns_cartpole(script) -> None:
    assert script["learn"]() > 150  # a random policy's mean is 22


def test_a_torchrl_rollout_with_our_actor_is_a_valid_batch_for_our_loss(script) -> None:
    env, actor, loss, _ = script["build"](seed=0)
    check_env_specs(env)
    rollout = env.rollout(20, actor, break_when_any_done=False)
    assert {"action", "log_prob", "entropy"} <= set(rollout.keys())
    assert env.action_spec.contains(rollout["action"][0])
    out = loss(rollout)
    assert set(loss.in_keys) <= set(rollout.keys(include_nested=True))
    assert list(out.keys()) == loss.out_keys
    assert isinstance(loss, LossModule)
    assert {key for key in out.keys() if key.startswith("loss_")} == {"loss_q", "loss_alpha"}  # noqa: SIM118  # no mapping
    assert sum(out[key] for key in ("loss_q", "loss_alpha")).requires_grad
    assert rollout["td_error"].shape == (*rollout.shape, 2)  # of each network


def test_truncated_steps_of_a_rollout_bootstrap_and_terminated_steps_do_not(script) -> None:
    env, actor, loss, _ = script["build"](seed=0)
    rollout = env.rollout(20, actor, break_when_any_done=False)
    errors = {}
    for terminated in (False, True):
        rollout["next", "terminated"].fill_(terminated)
        rollout["next", "truncated"].fill_(not terminated)
        loss(rollout)
        errors[terminated] = rollout["td_error"].clone()
    q_NB = loss.q_net.values(rollout["observation"]).gather(-1, rollout["action"].expand(2, -1)[..., None])
    torch.testing.assert_close(errors[True], (q_NB.squeeze(-1) - 1).abs().mT)  # y = r = 1
    assert not torch.allclose(errors[True], errors[False])


def test_the_loss_reads_and_writes_renamed_tensordict_keys(script) -> None:
    env, actor, loss, _ = script["build"](seed=0)
    rollout = env.rollout(20, actor, break_when_any_done=False)
    expected = loss(rollout.clone())
    renamed = rollout.rename_key_("action", "move").rename_key_(("next", "reward"), ("next", "points"))
    loss.set_keys(action="move", reward="points", td_error="surprise")
    assert {"move", ("next", "points")} <= set(loss.in_keys)
    for key, value in loss(renamed).items():
        torch.testing.assert_close(value, expected[key])
    assert "surprise" in renamed.keys()  # noqa: SIM118  # no mapping


def test_the_loss_accepts_tensors_as_keyword_arguments(script) -> None:
    env, actor, loss, _ = script["build"](seed=0)
    rollout = env.rollout(20, actor, break_when_any_done=False)
    values = loss(
        observation=rollout["observation"],
        action=rollout["action"],
        next_observation=rollout["next", "observation"],
        next_reward=rollout["next", "reward"],
        next_terminated=rollout["next", "terminated"],
    )
    for key, value in zip(loss.out_keys, values, strict=True):
        torch.testing.assert_close(value, loss(rollout)[key])


def test_the_loss_reads_the_multi_step_and_importance_weight_keys_of_torchrl(script) -> None:
    """``steps_to_next_obs`` is TorchRL's m, ``priority_weight`` its importance weight; γ = .99."""
    env, actor, loss, _ = script["build"](seed=0)
    row = env.rollout(1, actor)
    target_q = loss.target_q_net.values(row["next", "observation"])
    log_pi = F.log_policy(target_q.mean(0), loss.temperature.alpha)
    v = F.expected_mean(target_q, log_pi) + loss.temperature.alpha * F.entropy(log_pi)
    q_i = loss.q_net.values(row["observation"])[:, 0, row["action"].item()]
    row["steps_to_next_obs"] = torch.tensor([[3]])
    row["priority_weight"] = torch.tensor([0.5])
    expected = 0.5 * (q_i - (1 + 0.99**3 * v)).square().sum()
    torch.testing.assert_close(loss(row)["loss_q"], expected)


def test_targets_from_the_torchrl_multi_step_transform_stop_at_episode_ends(script) -> None:
    env, actor, loss, _ = script["build"](seed=0)
    n, gamma, rollout = 3, 0.99, env.rollout(80, actor, break_when_any_done=False)
    ended = rollout["next", "done"].flatten().tolist()
    assert sum(ended[: 80 - n]) >= 2
    transform = MultiStepTransform(n_steps=n, gamma=gamma, done_keys=["done", "truncated"])
    replay = TensorDictReplayBuffer(storage=LazyTensorStorage(100), transform=transform, batch_size=4)
    replay.extend(rollout)
    rows = replay[:]
    loss(rows)
    target_q = loss.target_q_net.values(rollout["next", "observation"])
    v = F.soft_value(target_q.mean(0), loss.temperature.alpha)
    q_iB = loss.q_net.values(rollout["observation"]).gather(-1, rollout["action"].expand(2, -1)[..., None])
    for start, row in enumerate(rows):
        m = next((k for k in range(1, n) if ended[start + k - 1]), n)
        last = start + m - 1
        bootstraps = not rollout["next", "terminated"][last].item()
        y = sum(gamma**k for k in range(m)) + gamma**m * bootstraps * v[last]
        torch.testing.assert_close(row["td_error"], (q_iB[:, start, 0] - y).abs())


def test_only_the_online_networks_and_the_temperature_are_trainable(script) -> None:
    _, _, loss, _ = script["build"](seed=0)
    learned = {name for name, parameter in loss.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in learned} == {"q_net", "temperature"}


def test_policy_weights_extracted_by_torchrl_include_alpha(script) -> None:
    _, actor, _, _ = script["build"](seed=0)
    assert "temperature.alpha" in TensorDict.from_module(actor).flatten_keys(".").keys()  # noqa: SIM118  # no mapping
