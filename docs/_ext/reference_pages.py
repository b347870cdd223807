"""Generates the pages of the reference: public names, parts and recipes."""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.inspect import signature, stringify_signature

import sqn_rl
from sqn_rl.plots.wiring import to_svg
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import RECIPE, TASK, Catalogue
from sqn_rl.recipe.compose import Recipe, compose_recipe
from sqn_rl.recipe.diff import changes_of
from sqn_rl.recipe.preflight import preflight
from sqn_rl.recipe.provenance import Document, flow, with_values
from sqn_rl.recipe.resolved import of_recipe
from sqn_rl.recipe.schema import SLOTS

ROOT = Path(__file__).parents[2]
PAGES = {
    "networks": ("Networks", {"q_net", "encoder", "head", "layers"}),
    "actors": ("Actors", {"actor"}),
    "losses": ("Losses and temperatures", {"loss", "temperature"}),
    "replay": ("Replay and returns", {"replay", "returns"}),
    "optimization": ("Optimizers and target updates", {"optimizer", "target_update"}),
    "environments": ("Environments", {"env"}),
    "running": ("Compose, train, load", set()),
}
"""Pages of public names: title, and the slots whose classes they show; the last page has all other names."""

IN_USE = ("compose", "Experiment", "train", "Plan", "Agent", "evaluate", "Evaluation", "load", "Policy")
"""The first names of that page, in the order in which a program uses them."""


def public_names() -> dict[str, list[str]]:
    """The public names, by key of :data:`PAGES`."""
    pages: dict[str, list[str]] = {page: [] for page in PAGES}
    by_slot = {slot: page for page, (_, slots) in PAGES.items() for slot in slots}
    for node in ast.parse(Path(sqn_rl.__file__).with_suffix(".pyi").read_text()).body:
        folder, _, rest = node.module.partition(".")
        slot = rest.partition(".")[0] if folder == "parts" else ""
        pages[by_slot.get(slot, "running")] += [alias.name for alias in node.names]
    return pages


def _title(text: str, underline: str = "=") -> str:
    return f"{text}\n{underline * len(text)}\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]], widths: str) -> Iterator[str]:
    yield f".. list-table::\n   :header-rows: 1\n   :widths: {widths}\n"
    for row in [header, *rows]:
        yield "\n".join(f"   {'* -' if number == 0 else '  -'} {cell}" for number, cell in enumerate(row))
    yield ""


def _toctree(pages: Iterable[str]) -> str:
    return "\n".join([".. toctree::", "   :maxdepth: 1", "", *(f"   {page}" for page in pages), ""])


def _text(words: str) -> str:
    """A YAML comment, with its Markdown code converted to reStructuredText."""
    return re.sub(r"`([^`]+)`", r"``\1``", words.replace("|", r"\|"))


def _names(title: str, names: Iterable[str]) -> Iterator[str]:
    yield _title(title)
    for name in sorted(names, key=lambda name: (IN_USE.index(name) if name in IN_USE else len(IN_USE), name)):
        if inspect.isclass(getattr(sqn_rl, name)):
            yield f".. autoclass:: sqn_rl.{name}\n   :members:\n   :show-inheritance:\n"
        else:
            yield f".. autofunction:: sqn_rl.{name}\n"


def _meanings(target: Any) -> dict[str, str]:
    """The descriptions of arguments in the docstring of one of our classes."""
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", f"{inspect.getdoc(target)}\n", re.MULTILINE)
    entries = re.findall(r"^    ([\w, ]+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.MULTILINE)
    meanings = {name: " ".join(text.split()) for names, text in entries for name in names.split(", ")}
    return {name: text.replace("|", r"\|") for name, text in meanings.items()}


def _slot(slot: str, catalogue: Catalogue, base: Recipe) -> Iterator[str]:
    yield _title(slot)
    for name in catalogue.names(slot):
        part = catalogue.read(slot, name)
        yield f".. _{slot}-{name}:\n\n{_title(name, '-')}"
        yield f"{_text(part.description)}\n"
        yield from _part(slot, part, catalogue, base)


def _part(slot: str, part: Document, catalogue: Catalogue, base: Recipe) -> Iterator[str]:
    fields = {name: value for name, value in part.content.items() if name != TARGET}
    meanings = {}
    if target := part.content.get(TARGET):
        meanings = _meanings(catalogue.resolve(slot, target)) if target.startswith("sqn_rl.") else {}
        limits = " ".join(f"``{other}={','.join(names)}``" for other, names in part.works_with.items())
        yield f":Class: :py:obj:`{target}`\n:Works with: {limits or 'everything'}"
    yield f":File: ``{part.shown}``\n"
    if fields:
        values = base.layers.resolved()
        rows = [
            (f"``{name}``", f"``{with_values(value, values)}``", meanings.get(name, ""))
            for name, value in fields.items()
        ]
        yield from _table(("field", "default", "meaning"), rows, "20 25 55")


def _recipe(name: str, catalogue: Catalogue, base: Recipe) -> Iterator[str]:
    document, recipe = catalogue.read(RECIPE, name), compose_recipe(name, catalogue=catalogue)
    yield f".. _recipe-{name}:\n\n{_title(name)}\n{_text(document.description)}\n"
    yield f".. code-block:: bash\n\n   sqn-run recipe={name}\n"
    yield f".. figure:: {_file(name)}.svg\n   :alt: The wiring of the recipe {name}\n   :width: 100%\n"
    yield "   Acting above, learning below; each box lists the keys that the part writes.\n"
    yield f"``{document.shown}``:\n\n.. code-block:: yaml\n"
    yield "".join(f"   {line}\n" for line in (catalogue_file(document)).read_text().splitlines())
    rows = []
    for slot in (each.name for each in SLOTS):
        fields = " ".join(f"``{key}={flow(value)}``" for key, value in recipe.fields(slot).items())
        part = recipe.part(slot)
        other = (
            ""
            if part == base.part(slot)
            else f" instead of :ref:`{base.part(slot)} <{slot}-{base.part(slot)}>`"
        )
        rows.append((f"``{slot}``", f":ref:`{part} <{slot}-{part}>`{other}", fields))
    yield from _table(("slot", "part", "settings"), rows, "15 30 55")


def catalogue_file(document: Document) -> Path:
    """The path of a file of the built-in catalogue."""
    return ROOT / document.shown


def _file(name: str) -> str:
    return name.replace("/", "-")


def _graph(name: str, catalogue: Catalogue) -> str:
    recipe = compose_recipe(name, catalogue=catalogue)
    graph = preflight(recipe)
    graph.changes = changes_of(of_recipe(name, recipe), catalogue)
    return to_svg(graph, f"{name} on {recipe.part('env')}")


def _write(path: Path, parts: Iterable[str]) -> Path:
    """Write a page, unless it is unchanged, so that Sphinx does not read it again."""
    text = "\n".join(parts)
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return path


def _newest(*folders: str) -> float:
    return max(path.stat().st_mtime for folder in folders for path in (ROOT / folder).rglob("*.*"))


def generate(app: Sphinx) -> None:
    """Write ``reference/generated``, and remove outdated files."""
    folder, catalogue = app.srcdir / "reference" / "generated", Catalogue()
    slots, names = [*(slot.name for slot in SLOTS), TASK], catalogue.names(RECIPE)
    written = [
        _write(folder / "api" / f"{page}.rst", _names(PAGES[page][0], public))
        for page, public in public_names().items()
    ]
    changed, base = _newest("sqn_rl", "components", "recipes"), compose_recipe(catalogue=catalogue)
    written += [_write(folder / "slots" / f"{slot}.rst", _slot(slot, catalogue, base)) for slot in slots]
    for name in names:
        page, graph = (folder / "recipes" / f"{_file(name)}{end}" for end in (".rst", ".svg"))
        written += [_write(page, _recipe(name, catalogue, base)), graph]
        if not graph.exists() or graph.stat().st_mtime < changed:
            graph.write_text(_graph(name, catalogue))
    descriptions = [
        (f":ref:`{name} <recipe-{name}>`", _text(catalogue.read(RECIPE, name).description)) for name in names
    ]
    recipes = [_title("Recipes"), *_table(("recipe", "description"), descriptions, "25 75")]
    written.append(
        _write(folder / "recipes.rst", [*recipes, _toctree(f"recipes/{_file(name)}" for name in names)])
    )
    written.append(
        _write(
            folder / "slots.rst",
            [_title("Slots and their parts"), _toctree(f"slots/{slot}" for slot in slots)],
        )
    )
    for path in set(folder.rglob("*.*")) - set(written):
        path.unlink()


def _init_signature(app: Sphinx, what: str, name: str, value: Any, *rest: Any) -> tuple[str, None] | None:
    """Show the signature of ``__init__`` for a class; the metaclasses of TorchRL hide it.

    A number in a range is shown as an ``int`` or a ``float``: the ranges would fill the signature.
    """
    if what != "class" or not inspect.isfunction(value.__init__):
        return None
    takes = signature(value.__init__, bound_method=True)
    shown = stringify_signature(takes, show_return_annotation=False, unqualified_typehints=True)
    return re.sub(r"~?(typing\.)?Annotated\[(\w+), '.*?'\]", r"\2", shown), None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", generate)
    app.connect("autodoc-process-signature", _init_signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
