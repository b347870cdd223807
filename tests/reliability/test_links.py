"""Nothing is written through a symbolic or hard link: its target is never changed."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle
from pathlib import Path

import pytest
from reliability.trials import TINY, Killed, differences, train

from sqn_rl.cli import ablate, evaluate, graph
from sqn_rl.disk import save
from sqn_rl.errors import SqnError
from sqn_rl.parts.logger.tensorboard import TensorBoardLogger
from sqn_rl.runs.directory import RunDirectory
from sqn_rl.types import Counters

SHORT = [*TINY, "steps=60", "warmup_steps=20", "checkpoint_every=20", "eval_every=0", "eval_episodes=1"]


def to_a_file(link: Path, outside: Path) -> None:
    link.symlink_to(outside / "file")


def to_a_folder(link: Path, outside: Path) -> None:
    link.symlink_to(outside / "folder")


def dangling(link: Path, outside: Path) -> None:
    link.symlink_to(outside / "nothing")


LINKS = [to_a_file, to_a_folder, dangling]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside the working directory with the targets of links, in which nothing may change."""
    (outside := tmp_path / "outside").mkdir()
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    (outside / "file").write_text("precious")
    (outside / "folder").mkdir()
    (outside / "folder" / "file").write_text("precious")
    yield outside
    left = {path.relative_to(outside).as_posix() for path in outside.rglob("*")}
    assert left == {"file", "folder", "folder/file"}
    assert {(outside / name).read_text() for name in ("file", "folder/file")} == {"precious"}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed before its end."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Killed):
        train(run, *SHORT, "logger=tensorboard", die=(run / "checkpoints" / "0000000040").exists)
    return run


def test_files_written_whole_replace_links_and_do_not_follow_them(stopped: Path, outside: Path) -> None:
    """Links at all names that a run has still to write, and at their ``.partial`` names."""
    run, other = (Path(shutil.copytree(stopped, name)) for name in ("run", "other"))
    assert train(other) == "done"
    left = {path.relative_to(other) for path in other.rglob("*") if path.suffix not in (".jsonl", ".sqn_rl")}
    new = {str(path) for path in left if not (run / path).exists() and path.parent.name != "0000000060"}
    new -= {"checkpoints/best"}  # a folder: a link in its place is refused
    names = {f"{path}.partial" for path in left} | new - {"checkpoints/0000000060"}
    assert {"curve.png", "curve.png.partial", "checkpoints/0000000060.partial", "summary.json"} <= names
    planted = [run / name for name in names if (run / name).parent.is_dir()]
    for leads, link in zip(cycle(LINKS), planted, strict=False):
        leads(link, outside)
    assert train(run) == "done"
    assert not any((run / name).is_symlink() for name in new)
    assert (run / "curve.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize("leads", LINKS)
@pytest.mark.parametrize(
    "name",
    [".lock", "metrics.jsonl", "tensorboard", "checkpoints", "checkpoints/replay", "checkpoints/best"],
)
def test_a_link_in_place_of_a_log_or_a_folder_of_a_run_is_refused(
    name: str, leads: Callable, outside: Path
) -> None:
    (folder := Path("run", name).parent).mkdir(parents=True)
    leads(Path("run", name), outside)

    def write() -> None:
        with closing(RunDirectory(Path("run"), "recipe")) as directory:
            directory.restore()
            directory.begin(Counters())
            directory.metrics({"env_steps": 1})
            TensorBoardLogger(directory=Path("run")).begin(Counters())

    with pytest.raises(SqnError, match=f"run/{name}: not a f|out = "):
        write()
    assert folder.is_dir()


@pytest.mark.parametrize("leads", LINKS)
@pytest.mark.parametrize("partial", ["", ".partial"])
def test_sqn_graph_output_does_not_follow_a_link(partial: str, leads: Callable, outside: Path) -> None:
    leads(Path(f"graph.svg{partial}"), outside)
    code = graph.main(["--format", "svg", "--output", "graph.svg"])
    assert (code, Path("graph.svg").is_file() and code == 0) == ((0, True) if partial else (2, False))


def test_sqn_eval_video_does_not_follow_a_link(
    stopped: Path, outside: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    to_a_file(Path("film.gif"), outside)
    assert evaluate.main([str(stopped), "--video", "film.gif"]) == 2
    assert "--video film.gif: a link; name the file itself" in capfd.readouterr().err
    for leads in LINKS:
        Path("other.gif.partial").unlink(missing_ok=True)
        leads(Path("other.gif.partial"), outside)
        save(Path("other.gif"), b"GIF89a")
        assert Path("other.gif").read_bytes() == b"GIF89a"


@pytest.mark.slow
def test_reports_and_logs_of_sqn_ablate_do_not_follow_links(outside: Path) -> None:
    out = Path("out")
    for number, name in enumerate(["comparison.md", "comparison.csv.partial", "comparison.png"]):
        out.mkdir(exist_ok=True)
        LINKS[number](out / name, outside)
    assert ablate.main(["head=linear,dueling", *SHORT, "seeds=1", "out=out", "--jobs", "1"]) == 0
    assert not any(path.is_symlink() for path in out.iterdir())
    (out / "base" / "s0.log").unlink()
    to_a_file(out / "base" / "s0.log", outside)
    (out / "base" / "s0" / "summary.json").unlink()
    assert ablate.main(["head=linear,dueling", *SHORT, "seeds=1", "out=out", "--jobs", "1"]) == 1


# --- hard links -------------------------------------------------------------------------------------------


def test_a_copy_made_of_hard_links_is_unchanged_when_the_original_resumes(
    stopped: Path, outside: Path
) -> None:
    run = Path(shutil.copytree(stopped, "run"))
    copy = Path(shutil.copytree(run, "copy", copy_function=os.link))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert train(run) == "done"
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    assert train(copy) == "done"
    assert differences(run, copy) == []
