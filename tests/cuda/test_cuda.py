"""On a GPU: the same results as on the CPU, within fp32 rounding; CUDA graphs; runs that resume.

Run ``pytest -m cuda`` on a machine with a GPU.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from sqn_rl import Agent, compose
from sqn_rl.training.agent import AGENT_PARTS
from sqn_rl.training.update.cuda_graph import CudaGraphs
from sqn_rl.training.weights import load_weights
from sqn_rl.types import Batch

DEVICE = os.environ.get("SQN_RL_TEST_DEVICE", "cuda")
"""Set it to ``cpu`` to run those tests that need no GPU, in order to check the tests."""

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available() and DEVICE == "cuda", reason="no GPU here"),
]

only_on_a_gpu = pytest.mark.skipif(DEVICE != "cuda", reason="no GPU here")


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32: PyTorch computes them in TensorFloat-32 on a GPU that has it."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


TINY = ["env=cartpole", "hidden=[32]", "batch_size=16", "num_envs=4", "replay_capacity=200", "compile=never"]
RECIPES = [
    ("sqn", []),
    ("sqn_tb", []),
    ("sqn_per", ["returns=n_step"]),
    ("sqn_categorical", []),
    ("sqn_quantile", ["head.dueling=true"]),
    ("sqn_munchausen", ["loss.backup=own"]),
    ("discrete_sac", []),
    ("double_dqn", []),
    ("sqn", ["q_net=twin_shared", "temperature=annealed"]),
    ("sqn", ["env=minatar", "encoder=minatar_cnn"]),
]
NOISY = [
    ("sqn_rainbow", ["encoder=mlp"]),
    ("sqn", ["loss.backup=sampled"]),
]


def made(device: str, recipe: str, *overrides: str, compiled: bool = False) -> tuple[Agent, Any]:
    """An agent whose replay has the same 40 random steps on every device; and its environments."""
    parts = compose(recipe, *TINY, *overrides, f"device={device}", "precision=fp32").recipe.build()
    agent = Agent(**{name: parts[name] for name in AGENT_PARTS}, compiled=compiled)
    env = parts["env"]
    observation, rng = env.begin(), torch.Generator().manual_seed(0)
    agent.replay.cut()
    for _ in range(40):
        action = torch.randint(env.n_actions, (env.num_envs,), generator=rng)
        step = env.advance(action)
        agent.replay.store(observation, action, step)
        observation = step.observation
    return agent, env


def moved(batch: Batch, device: str) -> Batch:
    return Batch.of({name: column.to(device) for name, column in batch.columns().items()})


@pytest.mark.parametrize(("recipe", "overrides"), RECIPES, ids=str)
def test_losses_and_gradients_are_equal_on_gpu_and_cpu(recipe: str, overrides: list[str]) -> None:
    here, there = made("cpu", recipe, *overrides)[0], made(DEVICE, recipe, *overrides)[0]
    load_weights(there.loss, here.loss.state_dict())
    batch = here.replay.draw(16)
    results = []
    for agent, own in ((here, batch), (there, moved(batch, DEVICE))):
        terms = agent.loss.compute(own)
        learned = [each for each in agent.loss.parameters() if each.requires_grad]
        gradients = torch.autograd.grad(sum(terms.losses.values()), learned, allow_unused=True)
        tensors = [
            *terms.losses.values(),
            terms.td_error,
            terms.q,
            *filter(lambda each: each is not None, gradients),
        ]
        results.append([each.detach().cpu() for each in tensors])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", ["sqn", "sqn_per"])
def test_networks_and_replay_stay_on_the_device(recipe: str) -> None:
    agent, _ = made(DEVICE, recipe)
    batch = agent.replay.draw(16)
    tensors = [*agent.loss.state_dict().values(), agent.replay.ring.action, *batch.columns().values()]
    assert {each.device.type for each in tensors} == {DEVICE}
    agent.update(batch)
    moments = [value for state in agent.optimizer.state.values() for value in state.values() if value.dim()]
    assert {each.device.type for each in moments} == {DEVICE}


@only_on_a_gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "cuda graph"])
@pytest.mark.parametrize(("recipe", "most"), [("sqn", 1), ("sqn_tb", 1), ("rainbow", 2)])
def test_an_update_synchronizes_with_the_gpu_once_and_once_more_for_priorities(
    recipe: str, most: int, compiled: bool
) -> None:
    """The second synchronization of prioritized replay fetches the TD errors when the GPU is idle."""
    agent, _ = made(DEVICE, recipe, compiled=compiled)
    batch = agent.replay.draw(16)
    for _ in range(3):
        agent.update(batch)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            agent.update(batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert len([each for each in found if "called a synchronizing" in str(each.message)]) <= most


@only_on_a_gpu
@pytest.mark.parametrize(("recipe", "overrides"), RECIPES + NOISY, ids=str)
def test_updates_by_cuda_graphs_equal_eager_updates(recipe: str, overrides: list[str]) -> None:
    """With the same random numbers, a new batch at each update, and batches of another size in between."""
    usual, recorded = (made(DEVICE, recipe, *overrides, compiled=each)[0] for each in (False, True))
    for size in (16, 16, 16, 8, 8, 8, 16, 16):
        ours, theirs = (agent.update(agent.replay.draw(size)) for agent in (usual, recorded))
        assert ours.losses.keys() == theirs.losses.keys()
        for name in ("td_error", "q"):
            torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), rtol=1e-4, atol=1e-5)
    assert recorded.runs_compiled
    weights = usual.loss.state_dict()
    for name, tensor in recorded.loss.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-3, atol=1e-4)


@only_on_a_gpu
def test_loss_terms_are_not_overwritten_by_the_next_cuda_graph_update() -> None:
    agent, _ = made(DEVICE, "sqn", compiled=True)
    for _ in range(3):
        terms = agent.update(agent.replay.draw(16))
    before = terms.q.clone()
    agent.update(agent.replay.draw(16))
    assert torch.equal(terms.q, before)


@only_on_a_gpu
@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda batch: batch.reward * batch.reward.sum().item(), "waits for the GPU"),
        (lambda batch: batch.reward + torch.randn(16, device="cuda", generator=UNNAMED[0]), "enerator"),
    ],
    ids=["waits for the GPU", "draws from an unregistered generator"],
)
def test_a_function_that_cannot_be_captured_runs_eagerly_with_one_warning(
    compute: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    UNNAMED[:] = [torch.Generator("cuda")]
    batch = made(DEVICE, "sqn")[0].replay.draw(16)
    graphs: CudaGraphs[torch.Tensor] = CudaGraphs(compute, "this", [])
    results = [graphs(batch) for _ in range(4)]
    assert not graphs.recorded
    assert reason in caplog.text
    assert caplog.text.count("this cannot be compiled") == 1
    assert all(torch.isfinite(each).all() for each in results)


UNNAMED: list[torch.Generator] = []


@pytest.mark.parametrize("compiled", ["never", "always"])
def test_a_run_on_the_gpu_resumes_with_the_same_episodes(compiled: str, tmp_path: Path) -> None:
    tiny = [*TINY[:-1], f"compile={compiled}", f"device={DEVICE}", "steps=400", "warmup_steps=100"]
    tiny += ["checkpoint_every=200", "eval_episodes=1"]
    whole = compose("sqn_per", *tiny, f"out={tmp_path / 'whole'}").train()
    stopped, turns = compose("sqn_per", *tiny, f"out={tmp_path / 'stopped'}"), iter(range(60))
    assert stopped.train(should_stop=lambda: next(turns, None) is None)["status"] == "stopped"
    again = stopped.train(resume=tmp_path / "stopped")
    assert [again[name] for name in ("status", "updates")] == [whole[name] for name in ("status", "updates")]
    one, other = ((tmp_path / run / "episodes.jsonl").read_text() for run in ("whole", "stopped"))
    assert one == other
