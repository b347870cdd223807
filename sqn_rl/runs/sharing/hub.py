"""Push a run to the Hugging Face hub, with a model card and what ``sqn_rl.load`` needs; and pull one.

What is pulled is untrusted data. Only files with the names of a run's files are downloaded, of at most
:data:`MOST_BYTES` together, and nothing in them is executed: a recipe is built under the rules of trust.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from sqn_rl.disk import EVALUATIONS_FILE, RECIPE_FILE, Folder
from sqn_rl.errors import CheckpointError, RecipeError, StorageError, first_line, to_install
from sqn_rl.parts.env.opening import closing_env
from sqn_rl.plots import wiring
from sqn_rl.plots.logs import finite_number
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.preflight import preflight
from sqn_rl.recipe.reading import is_there, read_file, read_rows
from sqn_rl.recipe.schema import SLOT_NAMES
from sqn_rl.runs import manifest
from sqn_rl.runs.manifest import CHECKPOINTS, MANIFEST
from sqn_rl.runs.saved import LAST, TARGETS, WEIGHTS, read_weights, write_folder

CARD, CURVE, GRAPH = "README.md", "curve.png", "graph.svg"

FILES = re.compile(
    rf"{re.escape(CARD)}|{re.escape(CURVE)}|{re.escape(GRAPH)}|{RECIPE_FILE}|{EVALUATIONS_FILE}"
    rf"|{CHECKPOINTS}/\d{{10,12}}/({re.escape(MANIFEST)}|{re.escape(WEIGHTS)})"
)
"""The names of the files that are pushed and pulled."""

MOST_FILES, MOST_BYTES = 20, 2**32
"""The most files, and bytes of all together, that are pulled from a repository."""

MOST_FILE_BYTES = 2**24
"""The largest recipe or curve that is pushed."""


class Hub(Protocol):
    """Repositories of models."""

    def push(self, folder: Path, repo: str, *, private: bool) -> None:
        """Upload a folder, and create the repository if it does not exist."""

    def files(self, repo: str) -> Mapping[str, int | None]:
        """The size of every file of a repository, None where the hub does not know it."""

    def pull(self, repo: str, name: str, folder: Path) -> None:
        """Download a file into a folder, under its name."""


class HuggingFace:
    """The Hugging Face hub, or the one of ``HF_ENDPOINT``.

    Raises:
        RecipeError: huggingface_hub is not installed.
    """

    def __init__(self) -> None:
        try:
            from huggingface_hub import HfApi
        except ImportError:
            raise RecipeError(f"huggingface_hub is not installed: {to_install('hub')}") from None
        self._api = HfApi(library_name="sqn_rl")
        self._commits: dict[str, str | None] = {}  # the one whose files were listed, by repository

    def push(self, folder: Path, repo: str, *, private: bool) -> None:
        """Upload a folder, in one commit."""
        self._api.create_repo(repo, private=private, exist_ok=True)
        self._api.upload_folder(repo_id=repo, folder_path=folder, commit_message="sqn-push")

    def files(self, repo: str) -> Mapping[str, int | None]:
        """The files of the newest commit."""
        found = self._api.model_info(repo, files_metadata=True)
        self._commits[repo] = found.sha
        return {each.rfilename: each.size for each in found.siblings or []}

    def pull(self, repo: str, name: str, folder: Path) -> None:
        """Download a file of the commit that :meth:`files` has listed."""
        self._api.hf_hub_download(repo, name, local_dir=folder, revision=self._commits.get(repo))


def write_model(run: Path, recipe: Recipe, folder: Path, checkpoint: str | int = LAST) -> None:
    """Write a run as a folder: a model card, the recipe, curve, wiring, evaluations, and weights.

    Target copies, which only learning needs, are left out.

    Args:
        run: the run directory.
        recipe: the recipe of the run.
        folder: the folder to write; it is empty, or does not exist yet.
        checkpoint: the checkpoint whose weights are written, as for :func:`sqn_rl.load`.

    Raises:
        RecipeError: the folder is not empty, or the recipe cannot be built.
        CheckpointError: there is no such checkpoint, or it is damaged.
        DataError: a file of the run is damaged.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder}: expected a folder that is empty or does not exist")
    path, env_steps, weights = read_weights(run / CHECKPOINTS, checkpoint)
    made_with = manifest.read(path.parent)["made_with"]
    rows = [row for row in read_rows(run / EVALUATIONS_FILE) if row.get("env_steps") == env_steps]
    graph = preflight(recipe)
    env_name = _env_name(recipe)
    files = {
        RECIPE_FILE: read_file(run / RECIPE_FILE, MOST_FILE_BYTES),
        EVALUATIONS_FILE: "".join(f"{json.dumps(row)}\n" for row in rows).encode(),
        GRAPH: wiring.to_svg(graph, f"{recipe.title} on {env_name}").encode(),
        CARD: card(recipe, env_name, env_steps, rows[-1] if rows else None).encode(),
    }
    if is_there(run / CURVE):
        files[CURVE] = read_file(run / CURVE, MOST_FILE_BYTES)
    folder.mkdir(parents=True, exist_ok=True)
    with Folder(folder) as out:
        marks = {name: out.write_atomic(name, [content]) for name, content in files.items()}
        with out.folder(CHECKPOINTS) as saved:
            own = {RECIPE_FILE: marks[RECIPE_FILE]}
            acting = {name: each for name, each in weights.items() if not name.startswith(TARGETS)}
            write_folder(saved, env_steps, {WEIGHTS: acting}, own, made_with, state=None)


def _env_name(recipe: Recipe) -> str:
    with closing_env(recipe.build(last="env", num_envs=1)["env"]) as env:
        return str(env.name)


RESULTS_TEMPLATE = """\
model-index:
- name: {title}
  results:
  - task: {{type: reinforcement-learning, name: reinforcement-learning}}
    dataset: {{name: {env}, type: {env}}}
    metrics:
    - {{type: mean_reward, name: mean_reward, value: "{score}", verified: false}}
"""

CARD_TEMPLATE = """\
---
library_name: sqn_rl
tags:
- reinforcement-learning
- sqn_rl
- {env}
{results}---

# {heading}

A policy of the Python package `sqn_rl` after {env_steps:,} environment steps.
{sentence}
![Curve]({curve})

```python
import sqn_rl

policy = sqn_rl.load("FOLDER"{trust})  # sqn-pull REPO FOLDER
print(policy.evaluate().mean)
```
{needs}
`sqn-eval FOLDER{option} --video video.gif` records an episode of an environment that can be drawn, and
`recipe.yaml` has all settings:

![Wiring]({graph})
"""


def own_modules(recipe: Recipe) -> list[str]:
    """The modules, neither of this package nor PyTorch, that have the recipe's parts and environment."""
    named = [recipe.config[slot][TARGET].rpartition(".")[0] for slot in SLOT_NAMES]
    named.append(str(recipe.config["env"].get("id")).rpartition(":")[0])
    return sorted({name for name in named if name and name.partition(".")[0] not in ("sqn_rl", "torch")})


def card(recipe: Recipe, env_name: str, env_steps: int, evaluation: Mapping[str, Any] | None) -> str:
    """The model card: metadata for the hub, and how to use the policy.

    Args:
        recipe: the recipe of the run.
        env_name: the name of the environment.
        env_steps: the environment steps after which the weights were saved.
        evaluation: the row of the evaluation of these weights; None if there is none.
    """
    title, env, modules = json.dumps(recipe.title), json.dumps(env_name), own_modules(recipe)
    row = evaluation or {}
    mean, std, episodes = (finite_number(row.get(name)) for name in ("mean", "std", "episodes"))
    results = sentence = ""
    if mean is not None and std is not None:
        how = "sampled" if (evaluation or {}).get("greedy") is False else "greedy"
        of = f"Mean return ± standard deviation of {episodes or 0:.0f} {how} episodes"
        score = f"{mean:.2f} +/- {std:.2f}"
        if episodes == 1:
            of, score = f"Return of 1 {how} episode", f"{mean:.2f}"
        results = RESULTS_TEMPLATE.format(title=title, env=env, score=score)
        sentence = f"\n{of}: {score}\n"
    return CARD_TEMPLATE.format(
        env=env,
        results=results,
        heading=f"{_escaped(recipe.title)} on {_escaped(env_name)}",
        env_steps=env_steps,
        sentence=sentence,
        trust=f", trust={modules}" if modules else "",
        needs=f"\nIt needs the code of {', '.join(modules)}, which is not here.\n" if modules else "",
        option="".join(f" --trust {module}" for module in modules),
        curve=CURVE,
        graph=GRAPH,
    )


def pull(hub: Hub, repo: str, out: Path) -> list[str]:
    """Download the files of a run, and nothing else.

    Args:
        hub: the hub to download from.
        repo: ``owner/name``.
        out: the folder to write, which must not exist. It appears when all files are complete.

    Returns:
        The names of the repository's other files, which are not downloaded.

    Raises:
        RecipeError: ``out`` exists, or the repository has no run, or too large a one.
        StorageError: the hub refuses, or does not answer.
    """
    _require_name(repo)
    if out.exists() or out.is_symlink():
        raise RecipeError(f"{out}: expected a folder that does not exist")
    sizes = _ask(repo, partial(hub.files, repo))
    wanted = _wanted(repo, sizes)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as beside:
        run = Path(beside) / "run"
        for name, size in wanted.items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            _ask(repo, partial(hub.pull, repo, name, Path(beside) / "hub"))
            pulled = Path(beside) / "hub" / name
            if pulled.is_symlink() or not pulled.is_file() or pulled.stat().st_size != size:
                raise CheckpointError(f"{repo}: {name}: not the file that the hub lists")
            pulled.rename(run / name)
        run.rename(out)
    return sorted(sizes.keys() - wanted.keys())


def _wanted(repo: str, sizes: Mapping[str, int | None]) -> dict[str, int | None]:
    """The files of a run among those of a repository, with their sizes in bytes.

    Raises:
        RecipeError: there is no run, or its files are too many or too large, or of unknown size.
    """
    wanted = {name: size for name, size in sizes.items() if FILES.fullmatch(name)}
    if RECIPE_FILE not in wanted or not any(name.endswith(WEIGHTS) for name in wanted):
        raise RecipeError(f"{repo}: no run: expected {RECIPE_FILE} and {CHECKPOINTS}/…/{WEIGHTS}")
    if len(wanted) > MOST_FILES:
        raise RecipeError(f"{repo}: {len(wanted)} files of a run; at most {MOST_FILES} are pulled")
    if unknown := [name for name, size in wanted.items() if size is None]:
        raise RecipeError(f"{repo}: {unknown[0]}: the hub does not know its size, so it is not pulled")
    if (total := sum(filter(None, wanted.values()))) > MOST_BYTES:
        raise RecipeError(f"{repo}: {total:,} bytes; at most {MOST_BYTES:,} are pulled")
    return wanted


def push(hub: Hub, folder: Path, repo: str, *, private: bool) -> None:
    """Upload a folder that :func:`write_model` has written.

    Raises:
        RecipeError: ``repo`` is no ``owner/name``.
        StorageError: the hub refuses, or does not answer.
    """
    _require_name(repo)
    _ask(repo, partial(hub.push, folder, repo, private=private))


def _require_name(repo: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise RecipeError(f"{repo}: expected a repository as owner/name")


def _ask(repo: str, request: Callable[[], Any]) -> Any:
    """The hub's answer to a request; its errors, which are of many kinds, become a StorageError."""
    try:
        return request()
    except Exception as error:
        raise StorageError(f"{repo}: {first_line(error)}") from error


def _escaped(text: str) -> str:
    """A text on one line, escaped for Markdown and HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))
