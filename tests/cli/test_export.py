"""``sqn-export``: an exported file computes the scores of the policy."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained import untrained

from sqn_rl import load
from sqn_rl.errors import to_install
from sqn_rl.runs.sharing.export import export

Command = Callable

WITHOUT_TORCH = """
import sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
states = np.load(sys.argv[2])
np.save(sys.argv[3], session.run(None, {"observation": states})[0])
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("run") / "run", "hidden=[32]")


def states_of(run: Path, number: int) -> torch.Tensor:
    spec = load(run).observation_spec
    generator = torch.Generator().manual_seed(0)
    if spec.dtype == torch.uint8:
        return torch.randint(256, (number, *spec.shape), generator=generator, dtype=torch.uint8)
    return torch.randn(number, *spec.shape, generator=generator)


CASES = {
    "sqn": ("action_value", []),
    "rainbow": ("action_value", []),
    "discrete_sac": ("logits", []),
    "sqn_quantile": ("action_value", ["env=atari_ram"]),
}


@pytest.mark.parametrize("recipe", CASES)
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_an_exported_file_computes_the_scores_of_the_policy(
    kind: str, recipe: str, command: Command, tmp_path: Path
) -> None:
    score, settings = CASES[recipe]
    run = untrained(tmp_path / "run", *settings, recipe=recipe)
    states, path = states_of(run, 1000), tmp_path / f"policy.{kind}"
    expected = load(run)(states).detach()
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    done = command("export", str(run), str(path))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{path}: observation {str(states.dtype)[6:]} [batch, {states.shape[1]}] -> ")
    assert done.out.endswith(f"-> {score} float32 [batch, {expected.shape[1]}]\n")
    for count in (1000, 1, 3):
        found = computed(path, states[:count])
        torch.testing.assert_close(found, expected[:count], rtol=1e-4, atol=1e-5)
        assert (found.argmax(-1) == expected[:count].argmax(-1)).all()


def computed(path: Path, states: torch.Tensor) -> torch.Tensor:
    """The scores that the file computes for these states; ONNX in a process without torch."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(states).detach()
    given, gotten = path.with_suffix(".states.npy"), path.with_suffix(".scores.npy")
    np.save(given, states.numpy())
    command = [sys.executable, "-P", "-c", WITHOUT_TORCH, *map(str, (path, given, gotten))]
    subprocess.run(command, check=True)
    return torch.from_numpy(np.load(gotten))


def test_a_policy_from_pixels_is_exported_in_float32(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    run = untrained(tmp_path / "run", "env=atari", "precision=bf16")
    path = tmp_path / "policy.onnx"
    assert command("export", str(run), str(path)).code == 0
    states = states_of(run, 20)
    expected = load(run)(states).detach()
    torch.testing.assert_close(computed(path, states), expected, rtol=0.05, atol=0.01)


def test_export_leaves_the_parameters_of_the_policy_trainable(trained: Path, tmp_path: Path) -> None:
    policy = load(trained)
    learned = [name for name, each in policy.named_parameters() if each.requires_grad]
    export(policy, tmp_path / "policy.pt2")
    assert learned
    assert [name for name, each in policy.named_parameters() if each.requires_grad] == learned


def test_a_kept_checkpoint_is_exported_and_a_missing_one_is_refused(
    trained: Path, command: Command, tmp_path: Path
) -> None:
    path = tmp_path / "policy.pt2"
    assert command("export", str(trained), str(path), "--checkpoint", "0").code == 0
    failed = command("export", str(trained), str(path), "--checkpoint", "best")
    assert failed.code == 2
    assert "no checkpoint best; kept: 0, last" in failed.err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("policy.txt", "output = 'policy.txt': expected a file name that ends in .onnx or .pt2\n"),
        ("no/policy.pt2", "output = 'no/policy.pt2': expected a file in a folder that exists\n"),
        ("folder.pt2", "folder.pt2: Is a directory\n"),
    ],
)
def test_an_output_file_that_cannot_be_written_is_refused(
    name: str, message: str, trained: Path, command: Command, folder: Path
) -> None:
    (folder / "folder.pt2").mkdir()
    done = command("export", str(trained), name)
    assert (done.code, done.out, done.err) == (2, "", message)


def test_without_the_export_extra_onnx_is_refused_with_what_to_install(
    trained: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqn_rl.runs.sharing.export.find_spec", lambda name: None)
    done = command("export", str(trained), "policy.onnx")
    assert done.code == 2
    assert f"expected the extra `export`: {to_install('export')}; or a .pt2" in done.err
