"""``sqn-push`` and ``sqn-pull``: a run as a model of the Hugging Face hub, without a network."""

import base64
import json
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from reliability.trials import TINY
from safetensors.torch import load_file

import sqn_rl
from sqn_rl import CheckpointError, RecipeError, SqnError, compose
from sqn_rl.errors import StorageError, to_install
from sqn_rl.recipe.catalogue import Catalogue
from sqn_rl.recipe.compose import compose_recipe
from sqn_rl.runs.sharing import hub as hubs
from sqn_rl.watch.folder import WatchedFolder
from sqn_rl.watch.run import WatchedRun

FILES = {"README.md", "recipe.yaml", "curve.png", "graph.svg", "evaluations.jsonl"}


class FolderHub:
    """A hub whose repositories are the folders in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sizes = folder, dict[str, int | None]()

    def push(self, folder: Path, repo: str, *, private: bool) -> None:
        shutil.copytree(folder, self.folder / repo)

    def files(self, repo: str) -> Mapping[str, int | None]:
        root = self.folder / repo
        there = {p.relative_to(root).as_posix(): p.stat().st_size for p in root.rglob("*") if p.is_file()}
        return there | self.sizes

    def pull(self, repo: str, name: str, folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / repo / name, folder / name, follow_symlinks=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "run"
    assert compose("sqn", *TINY, "head=dueling", f"out={out}").train()["status"] == "done"
    return out


@pytest.fixture(scope="module")
def model(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sqn_rl.cli.hub import push

    folder = tmp_path_factory.mktemp("models") / "me" / "model"
    assert push.main([str(run), "--to", str(folder)]) == 0
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_pushed_folder_has_the_model_card_the_policy_and_nothing_else(run: Path, model: Path) -> None:
    saved = {f"checkpoints/0000000300/{name}" for name in ("manifest.json", "weights.safetensors")}
    assert names(model) == FILES | saved
    _, metadata, text = (model / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(metadata)
    assert (card["library_name"], card["tags"]) == (
        "sqn_rl",
        ["reinforcement-learning", "sqn_rl", "CartPole-v1"],
    )
    (result,) = card["model-index"][0]["results"]
    *_, row = map(json.loads, (run / "evaluations.jsonl").read_text().splitlines())
    assert result["metrics"][0]["value"] == f"{row['mean']:.2f} +/- {row['std']:.2f}"
    assert result["dataset"] == {"name": "CartPole-v1", "type": "CartPole-v1"}
    assert "# sqn head=dueling on CartPole-v1" in text


def test_the_card_names_the_modules_that_must_be_trusted() -> None:
    own = compose_recipe("sqn", "env=gym", "env.id=my_envs.maze:Maze-v0", "head._target_=lab.Head")
    text = hubs.card(own, "Maze-v0", 300, None)
    assert """sqn_rl.load("FOLDER", trust=['lab', 'my_envs.maze'])""" in text
    assert "`sqn-eval FOLDER --trust lab --trust my_envs.maze --video video.gif`" in text
    assert "trust" not in hubs.card(compose_recipe("sqn", "optimizer=rmsprop"), "CartPole-v1", 300, None)


def test_a_pulled_model_acts_as_its_run_and_cannot_be_resumed(
    run: Path, model: Path, tmp_path: Path, capsys: Any
) -> None:
    from sqn_rl.cli import evaluate, resume

    hub, out = FolderHub(model.parents[1]), tmp_path / "pulled"
    assert hubs.pull(hub, "me/model", out) == []
    assert names(out) == names(model)
    states = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert (sqn_rl.load(out).q_values(states) == sqn_rl.load(run).q_values(states)).all()
    assert evaluate.main([str(out), "--max-steps", "5", "--video", str(tmp_path / "a.gif")]) == 0
    assert (tmp_path / "a.gif").stat().st_size > 1000
    capsys.readouterr()
    recipe = (out / "recipe.yaml").read_bytes()
    for budget in ([], ["steps=1000000"]):
        assert resume.main([str(out), *budget]) == 2  # there is no state to resume from
        refusal = "only weights, as written by sqn-push: sqn-eval, sqn-export and sqn_rl.load use them"
        assert refusal in capsys.readouterr().err
        assert (out / "recipe.yaml").read_bytes() == recipe
        assert names(out) == names(model)  # no .lock either
    with pytest.raises(sqn_rl.CheckpointError, match="only weights"):
        compose("sqn", *TINY, "head=dueling").train(resume=out)
    assert names(out) == names(model)


def test_sqn_watch_shows_a_pushed_model_with_the_status_model(model: Path) -> None:
    assert WatchedRun(model, Catalogue()).state()["status"] == "model"
    (row,) = WatchedFolder(model.parent, Catalogue()).state()["runs"]
    assert row["status"] == "model"


def test_target_networks_are_left_out_of_a_pushed_model(run: Path, model: Path) -> None:
    (ours,) = (run / "checkpoints" / "0000000300").glob("weights.*")
    (pushed,) = model.rglob("weights.safetensors")
    kept = {name for name in load_file(ours) if not name.startswith("target_")}
    assert kept == {*load_file(pushed)}
    assert len(kept) < len(load_file(ours))


def test_the_best_checkpoint_is_pushed_when_asked_for(run: Path, tmp_path: Path) -> None:
    from sqn_rl.cli.hub import push

    best = sqn_rl.load(run, "best").env_steps
    assert push.main([str(run), "--to", str(tmp_path / "best"), "--checkpoint", "best"]) == 0
    assert sqn_rl.load(tmp_path / "best").env_steps == best
    (row,) = map(json.loads, (tmp_path / "best" / "evaluations.jsonl").read_text().splitlines())
    assert row["env_steps"] == best


@pytest.fixture
def foreign(model: Path, tmp_path: Path) -> tuple[FolderHub, Path]:
    """A hub with a copy of the model, and that copy, which a test may forge."""
    shutil.copytree(model, tmp_path / "hub" / "me" / "model")
    return FolderHub(tmp_path / "hub"), tmp_path / "hub" / "me" / "model"


def test_only_files_of_a_run_are_pulled(foreign: tuple[FolderHub, Path], tmp_path: Path) -> None:
    hub, there = foreign
    others = ["sitecustomize.py", "x.pkl", "checkpoints/0000000300/state.pt", "checkpoints/best/x", ".lock"]
    for name in others:
        (there / name).parent.mkdir(exist_ok=True)
        (there / name).write_text("import os; os._exit(1)")
    hub.sizes = {"../recipe.yaml": 3, "/etc/passwd": 3, "checkpoints/../0000000300/weights.safetensors": 3}
    assert hubs.pull(hub, "me/model", tmp_path / "out") == sorted([*others, *hub.sizes])
    assert not {*others} & names(tmp_path / "out")


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"curve.png": 2**40}, RecipeError, "bytes; at most"),
        ({"curve.png": None}, RecipeError, "curve.png: the hub does not know its size"),
        ({f"checkpoints/{i:010d}/manifest.json": 1 for i in range(30)}, RecipeError, "of a run; at most 20"),
        ({"curve.png": 7}, CheckpointError, "curve.png: not the file that the hub lists"),
        ({"checkpoints/0000000301/manifest.json": 7}, StorageError, "me/model: FileNotFoundError"),
    ],
)
def test_files_too_large_too_many_or_unlike_the_listing_are_not_pulled(
    foreign: tuple[FolderHub, Path], sizes: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    hub, _ = foreign
    hub.sizes = sizes
    with pytest.raises(error, match=message):
        hubs.pull(hub, "me/model", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["hub"]


@pytest.mark.parametrize("repo", ["model", "me/model/", "a/b/c", "me/my model"])
def test_a_repository_that_is_not_owner_and_name_is_refused(repo: str, model: Path, tmp_path: Path) -> None:
    hub, message = FolderHub(tmp_path / "hub"), f"{repo}: expected a repository as owner/name"
    with pytest.raises(RecipeError, match=message):
        hubs.pull(hub, repo, tmp_path / "out")
    with pytest.raises(RecipeError, match=message):
        hubs.push(hub, model, repo, private=True)


def test_pull_refuses_links_repositories_without_a_run_and_existing_folders(
    foreign: tuple[FolderHub, Path], tmp_path: Path
) -> None:
    hub, there = foreign
    (there / "curve.png").unlink()
    (there / "curve.png").symlink_to(there / "README.md")
    with pytest.raises(CheckpointError, match="curve"):
        hubs.pull(hub, "me/model", tmp_path / "out")
    (there / "recipe.yaml").unlink()
    with pytest.raises(RecipeError, match="no run"):
        hubs.pull(hub, "me/model", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(RecipeError, match="does not exist"):
        hubs.pull(hub, "me/model", tmp_path / "out")


def test_a_forged_recipe_runs_no_code(foreign: tuple[FolderHub, Path], tmp_path: Path) -> None:
    hub, there = foreign
    text = (there / "recipe.yaml").read_text()
    (there / "recipe.yaml").write_text(text.replace("sqn_rl.DuelingHead", "os.system"))
    hubs.pull(hub, "me/model", tmp_path / "out")
    with pytest.raises(SqnError, match=r"os\.system"), pytest.warns(UserWarning, match="changed"):
        sqn_rl.load(tmp_path / "out")


def test_without_the_hub_extra_pull_fails_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from sqn_rl.cli.hub import pull

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert pull.main(["me/model", "out"]) == 2
    assert to_install("hub") in capsys.readouterr().err


@pytest.fixture
def pushed() -> dict[str, bytes]:
    """The files that the local hub has received."""
    return {}


@pytest.fixture
def server(model: Path, pushed: dict[str, bytes]) -> Iterator[str]:
    """A local hub, with the part of the protocol that a download and an upload need."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/api/repos/create":
                assert json.loads(body)["visibility"] == "private"
                answer: Any = {"url": f"http://{self.headers['Host']}/me/model"}
            elif "/preupload/" in self.path:
                files = json.loads(body)["files"]
                modes = {"uploadMode": "regular", "shouldIgnore": False}
                answer = {"files": [{"path": each["path"], **modes} for each in files]}
            elif "/commit/" in self.path:
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        pushed[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                answer = {"commitUrl": f"http://{self.headers['Host']}/me/model", "commitOid": "a" * 40}
            else:
                answer = {"errors": [], "warnings": []}
            content = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            commit, _, name = self.path.partition("?")[0].partition("/resolve/")[2].partition("/")
            if name:
                assert commit == "a" * 40  # the one that was listed
                content = (model / name).read_bytes()
            else:
                siblings = [{"rfilename": n, "size": (model / n).stat().st_size} for n in names(model)]
                siblings.append({"rfilename": "evil.py", "size": 3})
                content = json.dumps({"id": "me/model", "sha": "a" * 40, "siblings": siblings}).encode()
            self.send_response(200)
            for key, value in (
                ("ETag", '"b"'),
                ("X-Repo-Commit", "a" * 40),
                ("Content-Length", len(content)),
            ):
                self.send_header(key, str(value))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()
        thread.join()


@pytest.fixture
def hugging_face(server: str, monkeypatch: pytest.MonkeyPatch) -> hubs.HuggingFace:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    hub = hubs.HuggingFace()
    monkeypatch.setattr(hub, "_api", huggingface_hub.HfApi(endpoint=server, token=False))
    return hub


def test_a_model_is_pulled_through_huggingface_hub(
    hugging_face: hubs.HuggingFace, model: Path, tmp_path: Path
) -> None:
    assert hubs.pull(hugging_face, "me/model", tmp_path / "out") == ["evil.py"]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(model)} == {
        name: (model / name).read_bytes() for name in names(model)
    }


def test_a_model_is_pushed_through_huggingface_hub(
    hugging_face: hubs.HuggingFace, model: Path, pushed: dict[str, bytes]
) -> None:
    hubs.push(hugging_face, model, "me/model", private=True)
    assert pushed == {name: (model / name).read_bytes() for name in names(model)}
