"""Write a recipe file that inherits from a recipe, as ``sqn-run --save`` and ``sqn-tune`` do."""

from collections.abc import Iterator

from sqn_rl.errors import COMMAND_LINE, RecipeError
from sqn_rl.recipe.build import TARGET
from sqn_rl.recipe.catalogue import RECIPE, TASK
from sqn_rl.recipe.compose import Recipe
from sqn_rl.recipe.provenance import Values, flow
from sqn_rl.recipe.reading import printable
from sqn_rl.recipe.schema import SLOT_NAMES


def to_template(recipe: Recipe, name: str) -> str:
    """A recipe file that inherits from a recipe, with its overrides; all other values are comments.

    Args:
        recipe: a recipe that was composed, not loaded from a run.
        name: the recipe's name, or the path of the file.

    Raises:
        RecipeError: an override removed a value.
    """
    require_writable(recipe)
    chosen, layers = recipe.chosen, recipe.layers
    lines = [
        f"# A recipe of your own.      sqn-run recipe={printable(name)}",
        "defaults:",
        f"  - {flow(chosen[RECIPE].name)}",
    ]
    for group, key in {TASK: f"{TASK}@_global_", **{slot: slot for slot in SLOT_NAMES}}.items():
        if group in chosen and chosen[group].origin.startswith(COMMAND_LINE):
            lines.append(f"  - override /{key}: {flow(chosen[group].name)}")
    lines += [
        "  - _self_",
        "",
        "# To change a value, remove the `#` before it and before its part's name.",
    ]
    values = {key: value for key, value in layers.values.items() if key not in (RECIPE, *SLOT_NAMES)}
    lines += _lines(recipe, values)
    for slot in SLOT_NAMES:
        fields = {key: value for key, value in layers.values[slot].items() if key != TARGET}
        if _is_own(recipe, target := f"{slot}.{TARGET}"):
            fields = {TARGET: layers.get(target), **fields}
        lines += ["", *_slot_lines(slot, recipe.part(slot), [*_lines(recipe, fields, f"{slot}.")])]
    return "".join(f"{line}\n" for line in lines)


def require_writable(recipe: Recipe) -> None:
    """Refuse a recipe from which an override removed a value: a file cannot remove what it inherits.

    Raises:
        RecipeError: there is such an override.
    """
    for key, origin in recipe.layers.removed.items():
        if recipe.layers.get(key) is None:
            hint = "leave it out, or set the value instead"
            raise RecipeError("a recipe file cannot remove a value that it inherits", origin, hint)


def _slot_lines(slot: str, part: str, fields: list[str]) -> Iterator[str]:
    """A slot and the lines of its fields, indented; a comment as a whole if all fields are."""
    mark = "" if any(not line.startswith("#") for line in fields) else "# "
    yield f"{mark}{slot}:{'' if fields else ' {}'}  # {part}"
    for line in fields:
        yield line.replace("# ", "#   ", 1) if line.startswith("# ") else f"  {line}"


def _lines(recipe: Recipe, values: Values, prefix: str = "") -> Iterator[str]:
    """The values that the command line gave, and all others as comments with their origins."""
    for name, value in values.items():
        key, line = f"{prefix}{name}", f"{flow(name)}: {flow(value)}"
        if _is_own(recipe, key) and key not in ("out", "resume"):
            yield line
        else:
            origin = recipe.layers.origins.get(key, recipe.origin(key))
            yield f"# {line}  # {printable(' '.join(origin.split()))}"


def _is_own(recipe: Recipe, key: str) -> bool:
    """Whether the command line gave the value at a dotted key, or a value in the mapping there."""
    origins = recipe.layers.origins
    found = (origins[each] for each in origins if each == key or each.startswith(f"{key}."))
    return any(origin.startswith(COMMAND_LINE) for origin in found)
