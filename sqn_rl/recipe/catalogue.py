"""Find recipes and parts. This is the only module that imports what YAML names."""

import errno
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sqn_rl.errors import RecipeError, did_you_mean, require
from sqn_rl.recipe.provenance import Document, read
from sqn_rl.recipe.schema import hint_for_part

RECIPE, TASK = "recipe", "task"

YAML = ".yaml"
"""The suffix of a recipe's name if it is the path of a user's file, outside any tree."""

OPTIMIZERS = "torch.optim"
"""The module whose optimizers need no trust, although few of them have a part file of ours."""


class Choice(NamedTuple):
    """A recipe, a task or a part, as a defaults list or an override names it."""

    group: str
    name: str
    """For a recipe it may be the path of a file, which ends in ``.yaml``."""
    origin: str


class Catalogue:
    """The trees of recipes and parts: ours, those of ``SQN_RL_PATH``, and those given here.

    A tree is a folder with ``recipes/`` (one file per recipe; folders nest), ``components/`` (one folder per
    slot, one file per part), or both. Where two trees have a file of the same name, the user's wins. Modules
    that the user trusts may lie in a tree too.

    Args:
        config_dirs: further trees, as ``--config-dir`` gives them.
        trust: modules whose classes and functions may be built, as ``--trust`` gives them, and
            ``SQN_RL_TRUST``: by name, or as the path of a file that ends in ``.py``. No YAML can say this.

    Raises:
        RecipeError: a tree does not exist, has neither folder, or may not be read; or two trusted files have
            one name.
        SettingError: an argument is a single text, and no list.
    """

    def __init__(self, config_dirs: Sequence[str | Path] = (), trust: Sequence[str | Path] = ()) -> None:
        for name, given in (("config_dirs", config_dirs), ("trust", trust)):
            is_list = isinstance(given, list | tuple) and all(isinstance(each, str | Path) for each in given)
            example = str(given) if isinstance(given, str | Path) else "mine"
            require(is_list, name, given, f"a list, such as {[example]}")
        further = [*config_dirs, *_from_environment("SQN_RL_PATH")]
        written = [_checked_tree(Path(folder)) for folder in further]
        self._written = {**{tree.absolute(): tree for tree in written}, _own_tree(): Path()}
        self.trees = [*self._written]  # absolute, as the working directory may change
        named = (*map(str, trust), *_from_environment("SQN_RL_TRUST"))
        self._given: dict[str, Path] = {}
        for file in (Path(each) for each in named if each.endswith(".py")):
            other = self._given.setdefault(file.stem, file)
            if other.resolve() != file.resolve():
                hint = "rename one, as both would be the module of that name"
                raise RecipeError(f"--trust {other} --trust {file}: two files of one name", "", hint)
        self._sources = {name: file.absolute() for name, file in self._given.items()}  # the cwd may change
        self.trusted = tuple(Path(each).stem if each.endswith(".py") else each for each in named)
        self._documents: dict[tuple[str, str], Document] = {}

    @property
    def arguments(self) -> dict[str, list[str]]:
        """Arguments that make the same catalogue in another process, on any machine with these folders."""
        files = {name: str(path.resolve()) for name, path in self._sources.items()}
        folders = [str(tree.resolve()) for tree in self.trees[:-1]]
        return {"config_dirs": folders, "trust": [files.get(name, name) for name in self.trusted]}

    def groups(self) -> list[str]:
        """The slots, ``task`` and ``recipe``: every folder of parts."""
        return sorted(self._files)

    def names(self, group: str) -> list[str]:
        """The parts of a slot, or the recipes; nested ones as ``paper/pong``."""
        return sorted(self._files.get(group, ()))

    def require(self, choice: Choice) -> None:
        """Refuse a recipe or part that is not there.

        Raises:
            RecipeError: suggests similar names.
        """
        if choice.group == RECIPE and choice.name.endswith(YAML):
            if not Path(choice.name).is_file():
                hint = "`sqn-run recipe=sqn --save FILE.yaml` writes one to start from"
                raise RecipeError("there is no such file", choice.origin, hint, f"recipe={choice.name}")
        elif choice.name not in self._files.get(choice.group, ()):
            kind = "recipe" if choice.group == RECIPE else "part"
            hint, subject = self._hint_for_missing(choice), f"{choice.group}={choice.name}"
            raise RecipeError(f"there is no such {kind}", choice.origin, hint, subject)

    def _hint_for_missing(self, choice: Choice) -> str:
        """What to write instead: the recipe's file, the slot that has the part, or a similar name."""
        if choice.group == RECIPE and Path(choice.name + YAML).is_file():
            return f"write recipe={choice.name}{YAML}"
        if choice.group == RECIPE and choice.name.endswith(".yml"):
            return f"the name of a recipe's file ends in {YAML}"
        others = [group for group, files in self._files.items() if choice.name in files]
        if choice.group != RECIPE and others and choice.name != "none":
            return f"write {others[0]}={choice.name}"
        return hint_for_part(choice.group, choice.name, self.names(choice.group))

    def read(self, group: str, name: str) -> Document:
        """The YAML file of a part or recipe.

        Raises:
            RecipeError: there is none, or it is not YAML.
        """
        if (group, name) not in self._documents:
            self.require(Choice(group, name, ""))
            is_path = group == RECIPE and name.endswith(YAML)
            path, shown = (Path(name), Path(name)) if is_path else self._files[group][name]
            self._documents[group, name] = read(path, str(shown))
        return self._documents[group, name]

    @cached_property
    def _files(self) -> dict[str, dict[str, tuple[Path, Path]]]:
        """Files by group and name, each also as it is shown; of two of a name, that of the first tree."""
        files: dict[str, dict[str, tuple[Path, Path]]] = {RECIPE: {}}
        for tree in reversed(self.trees):
            components = tree / "components"
            folders = [(RECIPE, tree / "recipes")]
            if components.is_dir():
                folders += [(each.name, each) for each in components.iterdir() if each.is_dir()]
            for group, folder in folders:
                names = files.setdefault(group, {})
                for path in folder.rglob("*.yaml") if folder.is_dir() else ():
                    if path.is_file():
                        shown = self._written[tree] / path.relative_to(tree)
                        names[path.relative_to(folder).with_suffix("").as_posix()] = path, shown
        return files

    def resolve(self, slot: str, target: Any, origin: str = "") -> Callable[..., Any]:
        """Import the public class or function that a part's ``_target_`` names.

        Everything that YAML names is imported here. Without the user's trust, that is limited to what our own
        part files name for the same slot, and to the optimizers of ``torch.optim``. With it, both the dotted
        path and the module in which the object is defined must belong to a trusted module.

        Args:
            slot: the slot that the part is to fill.
            target: the dotted path.
            origin: where it is written, for the message.

        Raises:
            RecipeError: it may not be imported, or does not exist.
        """

        def refusal(why: str, hint: str = "") -> RecipeError:
            return RecipeError(f"_target_: {target}: {why}", origin, hint)

        if not isinstance(target, str) or not re.fullmatch(r"[a-zA-Z]\w*(\.[a-zA-Z]\w*)+", target):
            raise refusal("not the dotted path of a public class or function")
        module, _, name = target.rpartition(".")
        if target in _own_parts(slot) or (slot == "optimizer" and _is_optimizer(module, name)):
            imported: Callable[..., Any] = getattr(import_module(module), name)
            return imported
        if not self._trusts(module):
            ours = target.startswith("sqn_rl.")
            raise refusal(
                f"not a part of sqn_rl for the slot `{slot}`",
                did_you_mean(target, _own_parts(slot)) if ours else _trust_hint(module),
            )
        try:
            imported = getattr(self._import(module), name)
        except AttributeError as error:
            raise refusal(str(error)) from error
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            raise refusal(f"{type(error).__name__}: {error}", self._location_hint(module)) from error
        if not (inspect.isclass(imported) or inspect.isfunction(imported)) or "." in imported.__qualname__:
            raise refusal("not a class or function")
        if not self._trusts(imported.__module__):
            raise refusal(
                f"defined in {imported.__module__}, which is not trusted", _trust_hint(imported.__module__)
            )
        return imported

    def import_trusted(self) -> None:
        """Import the modules that the user trusts, so that they can register Gymnasium environments.

        Raises:
            RecipeError: one cannot be imported.
        """
        for module in self.trusted:
            if module in self._sources and not self._sources[module].is_file():
                raise RecipeError(f"--trust {self._given[module]}: there is no such file")
            if not all(part.isidentifier() for part in module.split(".")):
                raise RecipeError(f"--trust {module}: expected the name of a module, such as my_envs.robots")
            try:
                self._import(module)
            except (Exception, SystemExit) as error:
                where = self._location_hint(module)
                raise RecipeError(f"--trust {module}: {type(error).__name__}: {error}", "", where) from error

    def _import(self, module: str) -> ModuleType:
        """Import a module that the user trusts, which may be a file, or lie in a tree of the user's."""
        if module in self._sources:
            return _import_file(module, self._sources[module])
        with self._trees_on_the_path():
            return import_module(module)

    @contextmanager
    def _trees_on_the_path(self) -> Iterator[None]:
        """Search the user's trees for modules during this import only; no other import may find any there."""
        folders = [folder for tree in self.trees[:-1] if (folder := str(tree.resolve())) not in sys.path]
        sys.path += folders
        try:
            yield
        finally:
            sys.path[:] = [folder for folder in sys.path if folder not in folders]

    def _location_hint(self, module: str) -> str:
        """A hint on where a module must lie; empty if it can be found."""
        top = module.partition(".")[0]
        if top in self._sources:
            return ""
        with self._trees_on_the_path():
            if top in sys.modules or find_spec(top):
                return ""
        if Path(f"{module}.py").is_file():
            return f"trust the file here by its path: --trust ./{module}.py"
        return (
            "it must be installed or on PYTHONPATH (PYTHONPATH=. is this folder), or lie in a --config-dir "
            "beside its recipes/ or components/"
        )

    def _trusts(self, module: str) -> bool:
        return any(module == trusted or module.startswith(f"{trusted}.") for trusted in self.trusted)


def _import_file(name: str, file: Path) -> ModuleType:
    """Import a file as a module, once; it may not replace another module of that name."""
    file = file.resolve()
    if (loaded := sys.modules.get(name)) is not None:
        if Path(getattr(loaded, "__file__", None) or "").resolve() != file:
            raise ImportError(f"there is another module `{name}`; rename the file")
        return loaded
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None or (find_spec(name) and name in sys.stdlib_module_names):
        raise ImportError(f"`{name}` is the name of a module of Python; rename the file")
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@cache
def _own_parts(slot: str) -> frozenset[str]:
    """The classes and functions that our own part files name for a slot."""
    texts = (file.read_text(encoding="utf-8") for file in (_own_tree() / "components" / slot).glob("*.yaml"))
    return frozenset(target for text in texts for target in re.findall(r"^_target_: (\S+)$", text, re.M))


def _is_optimizer(module: str, name: str) -> bool:
    """Whether it is one of the optimizers in ``torch.optim``."""
    if module != OPTIMIZERS:
        return False
    from torch import optim

    imported = getattr(optim, name, None)
    return (
        inspect.isclass(imported)
        and issubclass(imported, optim.Optimizer)
        and imported is not optim.Optimizer
    )


def _trust_hint(module: str) -> str:
    return f"if you trust `{module}`, say so with --trust {module} (or SQN_RL_TRUST)"


def _from_environment(variable: str) -> list[str]:
    return [item for item in os.environ.get(variable, "").split(os.pathsep) if item]


def _own_tree() -> Path:
    """Our own tree: ``sqn_rl/_catalogue`` in a wheel, the folder around ``sqn_rl`` in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_catalogue"
    return installed if installed.is_dir() else package.parent


def _checked_tree(folder: Path) -> Path:
    """The folder of a tree; refuses one with neither subfolder, or with one that may not be read."""
    subfolders = [path for name in ("recipes", "components") if os.path.isdir(path := folder / name)]
    if not subfolders:
        raise RecipeError(f"{folder}: no folder with recipes/ or components/ in it")

    def refuse(error: OSError) -> None:
        raise RecipeError(f"{error.filename}: not a folder that this user may read")

    for path in subfolders:
        for inner, _, _ in os.walk(path, onerror=refuse):
            if not os.access(inner, os.X_OK):
                refuse(PermissionError(errno.EACCES, os.strerror(errno.EACCES), inner))
    return folder
