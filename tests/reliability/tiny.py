"""A run so small that it can be written, broken and read thousands of times."""

import random
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqn_rl.disk import Mark
from sqn_rl.errors import CheckpointError
from sqn_rl.runs.checkpoint import Checkpoints
from sqn_rl.runs.serialization import DTYPES
from sqn_rl.types import Rows

LINE = b'{"env_steps": 1, "return": 2.0}\n'


def rows(end: int, begin: int = 0) -> Rows:
    """A table in which row i is i, read four rows at a time."""
    return Rows(begin, end, 4, lambda begin, end: {"i": torch.arange(begin, end)})


def state(step: int, begin: int = 0) -> dict[str, Any]:
    """The state of a run after so many steps."""
    generator = torch.Generator().manual_seed(step)
    return {
        "counters": {"env_steps": step, "wall_s": 0.1 + step, "nothing": None, "yes": True, "name": "é"},
        "moments": [torch.rand(3, 2, generator=generator), torch.tensor(float(step)), torch.zeros(0, 4)],
        "deep": {"er": {"dtypes": {str(dtype): torch.tensor([step % 2]).to(dtype) for dtype in DTYPES}}},
        "rows": rows(step, begin),
    }


def weights(step: int) -> dict[str, Tensor]:
    """The weights of a run after so many steps."""
    return {"q": torch.full((2, 3), float(step)), "alpha": torch.tensor(0.5)}


def write(run: Path, checkpoints: Checkpoints, step: int, begin: int = 0) -> None:
    """Play up to this step, with a line in the log for each, and write a checkpoint."""
    log = LINE * step
    (run / "metrics.jsonl").write_bytes(log)
    marks = {"metrics.jsonl": Mark(len(log), sha256(log).hexdigest())}
    checkpoints.save(step, weights(step), state(step, begin), marks)


def saved(run: Path, *steps: int, keep: int = 2) -> Checkpoints:
    """A run with a checkpoint after each of so many steps."""
    run.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run / "checkpoints", keep)
    for step in steps:
        write(run, checkpoints, step)
    return checkpoints


def plain(value: Any) -> Any:
    """A state as plain Python values, which can be compared."""
    if isinstance(value, Tensor):
        return [str(value.dtype), [*value.shape], value.tolist()]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, str | int | float | None):
        return value
    return [i for begin, end, columns in value for i in columns["i"].tolist()]


def loaded(run: Path) -> tuple[int | str, list[str]]:
    """The step of the checkpoint that is loaded, or the error, and the messages about skipped ones.

    Asserts that the checkpoint is equal in every number to what was saved.
    """
    try:
        found = Checkpoints(run / "checkpoints", 2).load()
    except CheckpointError as error:
        return str(error), []
    if found is None:
        return 0, []
    assert plain(found.weights) == plain(weights(found.env_steps))
    assert plain(found.state) == plain(state(found.env_steps))
    return found.env_steps, found.skipped


# --- damage ------------------------------------------------------------------------------------------------


def one_bit(path: Path, chance: random.Random) -> None:
    """Flip one bit."""
    text = bytearray(path.read_bytes())
    if text:
        text[chance.randrange(len(text))] ^= 1 << chance.randrange(8)
    path.write_bytes(text)


def some_bytes(path: Path, chance: random.Random) -> None:
    """Overwrite up to 16 bytes."""
    text = bytearray(path.read_bytes())
    at = chance.randrange(len(text) or 1)
    text[at : at + 16] = chance.randbytes(len(text[at : at + 16]))
    path.write_bytes(text)


def cut_short(path: Path, chance: random.Random) -> None:
    """Truncate the file."""
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size or 1)])


def made_longer(path: Path, chance: random.Random) -> None:
    """Append some bytes."""
    path.write_bytes(path.read_bytes() + chance.randbytes(1 + chance.randrange(9)))


def gone(path: Path, chance: random.Random) -> None:
    """Remove the file."""
    path.unlink()


def a_folder(path: Path, chance: random.Random) -> None:
    """Replace the file by a folder."""
    path.unlink()
    path.mkdir()


def another_file(path: Path, chance: random.Random) -> None:
    """Replace the file by a copy of another file of the run."""
    run = next(parent for parent in path.parents if (parent / "metrics.jsonl").is_file())
    others = sorted(each for each in run.rglob("*.*") if each.is_file() and each != path)
    shutil.copy(chance.choice(others), path)


DAMAGES = [one_bit, some_bytes, cut_short, made_longer, gone, a_folder, another_file]


class Damaged:
    """Damages copies of a run with two checkpoints, and checks that the damage is detected.

    Args:
        folder: where to work.
    """

    steps = (5, 9)

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole, self.number = folder, folder / "whole", 0
        saved(self.whole, *self.steps)
        self.files = sorted(p.relative_to(self.whole) for p in self.whole.rglob("*") if p.is_file())
        self._needs = {step: self.needed(step, self.whole) for step in self.steps}

    def needed(self, step: int, run: Path) -> dict[str, bytes | None]:
        """The contents of all files that the checkpoint of this step needs."""
        files = ("manifest.json", "state.safetensors", "weights.safetensors")
        names = [f"checkpoints/{step:010d}/{name}" for name in files]
        pieces = [(begin, end) for begin, end in ((0, 4), (4, 5), (5, 9)) if end <= step]
        names += [f"checkpoints/replay/{begin:012d}-{end:012d}.safetensors" for begin, end in pieces]
        there = {name: contents(run / name) for name in names}
        log = contents(run / "metrics.jsonl")
        return there | {"metrics.jsonl": log and log[: len(LINE) * step]}

    def right(self, how: Callable[[Path, random.Random], None], file: Path, seed: int) -> bool:
        """Whether the newest undamaged checkpoint is loaded, and damaged files of a newer one are named."""
        self.number += 1
        run = Path(shutil.copytree(self.whole, self.folder / f"{self.number:06d}"))
        how(run / file, random.Random(seed))
        wrong = {
            step: [name for name, is_ in self.needed(step, run).items() if is_ != self._needs[step][name]]
            for step in self.steps
        }
        found, passed_over = loaded(run)
        shutil.rmtree(run)
        message = "\n".join(passed_over) if isinstance(found, int) else found
        named = all(str(run / name) in message for name in wrong[9])
        newest = next((step for step in reversed(self.steps) if not wrong[step]), None)
        return named and (found == newest if newest else isinstance(found, str))


def contents(path: Path) -> bytes | None:
    """The bytes of a file; None if there is no file."""
    return path.read_bytes() if path.is_file() else None
