"""What recipes and parts there are, and the one door through which YAML has anything imported."""

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from sqn_rl.errors import RecipeError
from sqn_rl.provenance import Document, read

RECIPE, TASK = "recipe", "task"

ALLOWED = ("sqn_rl", "torchrl", "tensordict.nn", "torch.nn", "torch.optim")
"""Where a part's class may live without the user's saying so."""


def did_you_mean(name: str, among: Collection[str]) -> str:
    """How to mend a wrong name: the nearest valid one and those as near, or all of them."""
    if near := difflib.get_close_matches(name, among, n=3):
        likeness = [difflib.SequenceMatcher(None, other, name).ratio() for other in near]
        likely = [
            f"`{other}`" for other, alike in zip(near, likeness, strict=True) if alike > likeness[0] - 0.1
        ]
        return f"did you mean {' or '.join(likely)}?"
    return f"there are: {', '.join(sorted(among))}" if among else ""


class Catalogue:
    """The trees of recipes and parts: ours, those of ``SQN_RL_PATH``, and those given here.

    A tree is a folder with ``recipes/`` (a file a recipe; folders nest) and ``components/`` (a folder a slot,
    a file a part), or one of the two. Where two trees have a file of one name, the user's wins. Modules that
    the user trusts may lie in a tree too.

    Args:
        config_dirs: further trees, as ``--config-dir`` gives them.
        trust: modules besides :data:`ALLOWED` whose classes may be built, as ``--trust`` gives them, and
            ``SQN_RL_TRUST``.

    Raises:
        RecipeError: a tree does not exist, or has neither folder.
    """

    def __init__(self, config_dirs: Sequence[str | Path] = (), trust: Sequence[str] = ()) -> None:
        further = [*config_dirs, *_from_environment("SQN_RL_PATH")]
        self.trees = [_tree(Path(folder)) for folder in further] + [_own_tree()]
        self._trusted_by_user = (*trust, *_from_environment("SQN_RL_TRUST"))
        self.trusted = (*ALLOWED, *self._trusted_by_user)
        self._documents: dict[tuple[str, str], Document] = {}

    def groups(self) -> list[str]:
        """The slots, ``task`` and ``recipe``: every folder of parts."""
        slots = {
            folder.name
            for tree in self.trees
            if (tree / "components").is_dir()
            for folder in (tree / "components").iterdir()
            if folder.is_dir()
        }
        return sorted(slots | {RECIPE})

    def names(self, group: str) -> list[str]:
        """The parts of a slot, or the recipes; nested ones as ``paper/pong``."""
        return sorted(
            {
                path.relative_to(folder).with_suffix("").as_posix()
                for folder in self._folders(group)
                for path in folder.rglob("*.yaml")
            }
        )

    def read(self, group: str, name: str) -> Document:
        """The YAML file of a part or recipe.

        Raises:
            RecipeError: there is none, or it is not YAML.
        """
        if (group, name) not in self._documents:
            paths = [path for folder in self._folders(group) if (path := folder / f"{name}.yaml").is_file()]
            if not paths:
                raise self.unknown(group, name)
            ours = paths[0].is_relative_to(_own_tree())
            shown = paths[0].relative_to(_own_tree()).as_posix() if ours else str(paths[0])
            self._documents[group, name] = read(paths[0], shown)
        return self._documents[group, name]

    def unknown(self, group: str, name: str, origin: str = "") -> RecipeError:
        """The error of there being no such part or recipe."""
        kind = "recipe" if group == RECIPE else f"{group} part"
        return RecipeError(f"there is no {kind} `{name}`", origin, did_you_mean(name, self.names(group)))

    def _folders(self, group: str) -> list[Path]:
        relative = Path("recipes") if group == RECIPE else Path("components", group)
        return [folder for tree in self.trees if (folder := tree / relative).is_dir()]

    def resolve(self, target: Any, origin: str = "") -> Callable[..., Any]:
        """Import the public class or function that a part's ``_target_`` names.

        Nothing in YAML is imported but through here. Both the dotted path and the module in which the object
        is defined must lie in :data:`ALLOWED` or what the user trusts; of ``sqn_rl`` only public names do.

        Args:
            target: the dotted path.
            origin: where it is written, for the message.

        Raises:
            RecipeError: it may not be imported, or does not exist.
        """

        def refusal(why: str, mend: str = "") -> RecipeError:
            return RecipeError(f"_target_: {target}: {why}", origin, mend)

        if not isinstance(target, str) or not re.fullmatch(r"[a-zA-Z]\w*(\.[a-zA-Z]\w*)+", target):
            raise refusal("not the dotted path of a public class or function")
        module_name, _, name = target.rpartition(".")
        if not self._allows(module_name):
            top = module_name.partition(".")[0]
            mend = f"if you trust `{top}`, say so with --trust {top} (or SQN_RL_TRUST)"
            raise refusal(f"not in {', '.join(self.trusted)}", mend)
        if module_name.partition(".")[0] == "sqn_rl":
            public = {f"sqn_rl.{each}" for each in import_module("sqn_rl").__all__}
            if target not in public:
                raise refusal("not a public name of sqn_rl", did_you_mean(target, public))
        try:
            found = getattr(self._import(module_name), name)
        except AttributeError as error:
            raise refusal(str(error)) from error
        except Exception as error:  # of a user's module anything
            raise refusal(f"{type(error).__name__}: {error}", self._where_modules_are(module_name)) from error
        if not (inspect.isclass(found) or inspect.isfunction(found)) or "." in found.__qualname__:
            raise refusal("not a class or function")
        if not self._allows(found.__module__):
            raise refusal(f"defined in {found.__module__}, which is not in {', '.join(self.trusted)}")
        return found

    def import_trusted(self) -> None:
        """Import the modules that the user trusts, so that they can register Gymnasium environments.

        Raises:
            RecipeError: one cannot be imported.
        """
        for module in self._trusted_by_user:
            try:
                self._import(module)
            except Exception as error:
                where = self._where_modules_are(module)
                raise RecipeError(f"--trust {module}: {type(error).__name__}: {error}", "", where) from error

    def _import(self, module: str) -> ModuleType:
        sys.path += [folder for tree in self.trees[:-1] if (folder := str(tree.resolve())) not in sys.path]
        return import_module(module)

    def _where_modules_are(self, module: str) -> str:
        found = find_spec(module.partition(".")[0])
        return "" if found else "it must be installed, on PYTHONPATH, or in a folder given with --config-dir"

    def _allows(self, module: str) -> bool:
        return any(module == allowed or module.startswith(f"{allowed}.") for allowed in self.trusted)


def _from_environment(variable: str) -> list[str]:
    return [item for item in os.environ.get(variable, "").split(os.pathsep) if item]


def _own_tree() -> Path:
    """In a wheel ``sqn_rl/_catalogue``; in a checkout the top-level folders beside ``sqn_rl``."""
    package = Path(__file__).parent
    installed = package / "_catalogue"
    return installed if installed.is_dir() else package.parent


def _tree(folder: Path) -> Path:
    if not any((folder / name).is_dir() for name in ("recipes", "components")):
        raise RecipeError(f"{folder}: no folder with recipes/ or components/ in it")
    return folder
