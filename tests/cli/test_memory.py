"""Recurrent networks as a user meets them: training, evaluation, video, loading, and refusals."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from sqn_rl import GymEnv, Player, Policy, RecipeError, SettingError, WiringError, compose, evaluate, load
from sqn_rl.plots.film import Play
from sqn_rl.runs.sharing.export import export
from sqn_rl.training.numerics import bundle, not_finite, unbundle

RECALL = ["env=recall", "env.kwargs.delay=4", "steps=1200", "warmup_steps=200", "lr=3e-3", "update_ratio=0.2"]
TINY = ["env=cartpole_masked", "hidden=[8]", "steps=60", "warmup_steps=20", "num_envs=2"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    out = tmp_path_factory.mktemp("recall") / "run"
    compose("sqn_r2d2", *RECALL, "q_net.units=64", "eval_episodes=30", f"out={out}").train()
    return load(out)


def test_a_recurrent_agent_solves_the_recall_task(policy: Policy) -> None:
    assert policy.evaluate().mean == 1.0
    assert policy.evaluate(greedy=False).mean > 0.8


def test_a_player_solves_the_recall_task_in_a_plain_gymnasium_loop(policy: Policy) -> None:
    env, player = gymnasium.make("sqn_rl/Recall-v0", delay=4, cues=2), policy.player()
    returns = []
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        score, over = 0.0, False
        while not over:
            action = player.act(observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            player.record(reward, over := terminated or truncated)
            score += float(reward)
        returns.append(score)
    assert returns == [1.0] * 12


def test_a_player_acts_in_parallel_episodes_and_begin_leaves_the_others_unchanged(policy: Policy) -> None:
    cues, flag = np.eye(3, dtype=np.float32)[[0, 1, 0]], np.eye(3, dtype=np.float32)[[2] * 3]
    nothing = flag * 0
    acted = dict[int, list[int]]()
    for forgets in ([], [1], [0, 1]):
        player = policy.player(num_envs=3)
        for observation in (cues, nothing, nothing, nothing):
            player.act(observation)
            player.record(np.zeros(3), np.zeros(3, bool))
        player.begin(forgets)
        acted[len(forgets)] = player.act(flag).tolist()
    player = policy.player(num_envs=3)
    for observation in (cues, nothing, nothing, nothing):
        player.act(observation)
        player.record(0.0, False)  # scalars apply to all episodes
    assert player.act(flag).tolist() == acted[0]
    for name, seen in {"reward": (np.zeros(2), False), "ended": (0.0, np.zeros(2, bool))}.items():
        with pytest.raises(SettingError, match=f"{name} = .*: expected .*, or 3 of them"):
            player.record(*seen)
    assert acted[0] == [0, 1, 0]
    assert acted[1][::2] == [0, 0]
    assert acted[2][0] == acted[2][1]  # both cues are forgotten
    assert acted[1][1] == acted[2][1]


def test_misuse_of_a_recurrent_policy_is_refused_with_a_hint(policy: Policy, tmp_path: Path) -> None:
    for method in (policy.act, policy.q_values, policy.probabilities):
        with pytest.raises(WiringError, match=r"LSTMQNet remembers the episode; act by .*policy\.player\(\)"):
            method(np.zeros(3, np.float32))
    with pytest.raises(SettingError, match=r"observations = 2: expected 1, as policy\.player"):
        policy.player().act(np.zeros((2, 3), np.float32))
    with pytest.raises(SettingError, match="to be called after act"):
        policy.player().record(0.0, False)
    with pytest.raises(
        RecipeError, match=r"^recurrent networks cannot be exported\n  run it in Python: .*player"
    ):
        export(policy, tmp_path / "policy.pt2")


def test_a_video_plays_the_evaluated_episodes_and_shows_the_acting_policy() -> None:
    parts = compose("sqn_r2d2", *TINY).recipe.build()
    parts["env"].close()
    actor, q_net = parts["actor"], parts["q_net"]

    def cart() -> GymEnv:
        return GymEnv(id="sqn_rl/CartPoleMasked-v1", num_envs=1, seed=4, training=False)

    env = cart()
    env.show = lambda: None  # rendering is slow
    env.screen = lambda: np.zeros((4, 4, 3), np.uint8)
    play = Play(actor, q_net, env, episodes=3, greedy=False, seed=7)
    moments = [*play]
    evaluation = evaluate(actor, cart(), episodes=3, greedy=False, seed=7)
    assert play.evaluation.returns == evaluation.returns
    assert len(moments) == sum(evaluation.lengths)
    firsts = [moment for moment in moments if moment.step == 0]
    assert len(firsts) == 3
    for moment in firsts:
        assert torch.allclose(moment.pi, torch.softmax(moment.q / parts["temperature"].alpha, -1))


def test_a_nan_in_a_saved_sequence_batch_is_found_and_named() -> None:
    agent, env, _ = compose("sqn_r2d2", *TINY).build()
    player, observation = Player(agent.actor, 2), env.begin()
    for _ in range(20):
        action = player.act(observation)
        step = player.record(action, env.advance(action))
        agent.replay.store(observation, action, step)
        observation = step.observation
    env.close()
    kept = bundle(agent.loss, agent.replay.draw(4))
    batch, _ = unbundle(kept)
    assert not_finite(agent.loss, batch) == []
    kept["batch.sequences.state"][0, 0] = float("nan")
    assert not_finite(agent.loss, unbundle(kept)[0])[0].startswith(
        "replay: sequences.state of the batch: 1 of"
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["replay=uniform"], "UniformReplay gives single steps; choose replay=sequences"),
        (["q_net=twin"], "SequenceReplay is for recurrent networks; QNet is not one; choose q_net=lstm"),
        (["returns=tree_backup"], "TreeBackup needs observations one by one"),
        (["returns=retrace"], "Retrace needs observations one by one"),
        (["returns.soft=true"], "set returns.soft=false, or choose returns=one_step"),
        (["actor=policy", "loss=discrete_sac"], "PolicyActor's own network is not recurrent"),
        (["compile=always"], "auto or never: recurrent networks are not compiled"),
        (["replay.stride=30"], "replay.stride=30: expected at most the length, 20"),
        (["encoder=lstm"], "write q_net=lstm"),
        (["replay_capacity=70"], "expected at least 80: burn_in . length . stride = 40 steps of each of 2"),
    ],
    ids=str,
)
def test_incompatible_parts_and_settings_of_a_recurrent_recipe_are_refused(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        compose("sqn_r2d2", *TINY, *overrides).preflight()


def test_the_wiring_graph_shows_which_nodes_write_and_read_the_memory() -> None:
    graph = compose("sqn_r2d2", *TINY).preflight()
    writes = {entry.key: entry for entry in graph.nodes[0].writes}
    assert "memory" not in writes
    actor = next(node for node in graph.nodes if node.slot == "actor")
    memory = next(entry for entry in actor.writes if entry.key == "memory")
    assert memory.shape == (2, 2 * 128 + 2)
    assert "memory" in next(node for node in graph.nodes if node.slot == "replay").reads
    assert [node.slot for node in graph.nodes if node.slot in ("encoder", "head")] == ["encoder", "head"]
