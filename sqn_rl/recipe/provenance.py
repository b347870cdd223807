"""The origin of each value: YAML files with line numbers, and layers of values that keep their origins."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sqn_rl.errors import RecipeError
from sqn_rl.recipe.reading import DEPTH, DataError, Loader, read_yaml

Values = dict[str, Any]

INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")
"""``${lr}``: a value that stands for another one."""

MAX_SIZE = 2**18
"""The most values and characters that a recipe may have after every ``${name}`` is replaced."""


@dataclass(frozen=True)
class Document:
    """One YAML file."""

    shown: str
    """Its path as messages show it."""
    description: str
    """The comment on its first line, up to two spaces."""
    works_with: Mapping[str, tuple[str, ...]]
    """By slot, the only parts that it works with, from its comment ``# works with env=atari actor=…``."""
    values: Values
    """Its values, with interpolations unresolved."""
    lines: Mapping[str, int]
    """The line number of every value and list item, by dotted key: ``env.id``, ``defaults.1``."""
    text: Sequence[str]
    """Its lines."""

    @property
    def content(self) -> Values:
        """The values without the defaults list."""
        return {name: value for name, value in self.values.items() if name != "defaults"}

    def comment(self, key: str) -> str:
        """The comment behind a value; in a run's ``recipe.yaml``, it says where the value came from."""
        line = self.text[self.lines[key] - 1] if key in self.lines else ""
        return line.rpartition("  # ")[2] if "  # " in line else ""

    def origin(self, key: str) -> str:
        """File and line of a value, ``recipes/x.yaml:12``, or of the nearest enclosing value with a line."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        return f"{self.shown}:{self.lines[key]}" if key in self.lines else self.shown


def read(path: Path, shown: str) -> Document:
    """Read a YAML file.

    Args:
        path: the path of the file.
        shown: its name in messages.

    Raises:
        RecipeError: the file cannot be read, or is not a YAML mapping.
    """
    try:
        text, values, node = read_yaml(path)
    except DataError as error:
        where = f"{shown}:{error.line}" if error.line else shown
        raise RecipeError(error.message, where) from error
    values = {} if node is None else values
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RecipeError("not a mapping of names to values", shown, "write `name: value`, one a line")
    comment = re.match(r"#\s*(.*?)(\s{2,}|\n|$)", text)
    limits = re.search(r"^# works with (.*)$", text, re.MULTILINE)
    pairs = [limit.partition("=") for limit in limits[1].split()] if limits else []
    works_with = {slot: tuple(names.split(",")) for slot, _, names in pairs}
    description = comment[1] if comment else ""
    return Document(shown, description, works_with, values, dict(_lines(node)), text.splitlines())


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Every key below ``node``, dotted, and its line, counted from 1."""
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(index), item, item) for index, item in enumerate(node.value)]
    else:
        return
    for name, marked, child in children:
        yield f"{prefix}{name}", marked.start_mark.line + 1
        yield from _lines(child, f"{prefix}{name}.")


def part_file(slot: str, origin: str) -> str:
    """The name of the part whose file in ``components/`` is the origin of a value; empty if there is none."""
    file = re.search(rf"components/{slot}/(.+)\.yaml:\d+$", origin)
    return file[1] if file else ""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a YAML reader, ours included, would not read back as the same text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - a class attribute, as in PyYAML
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()), *resolvers]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Write a text on one line."""
        style = None if text.isprintable() else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _Dumper.represent_text)


def flow(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, width=math.inf, allow_unicode=True)
    return text.removesuffix("...\n").strip()


PLAIN = re.compile(r"(?!(?i:null|true|false|inf|nan)$)[a-zA-Z_/][a-zA-Z0-9_/.+-]*")
"""Texts that an override need not quote."""


def override(key: str, value: Any) -> str:
    """The override ``key=value`` that gives exactly this value on the command line."""
    return f"{key}={_in_override(value)}"


def _in_override(value: Any) -> str:
    if isinstance(value, str):
        escaped = re.sub(r"(\\*)('|\Z)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
        return value if PLAIN.fullmatch(value) else f"'{escaped}'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_in_override(child)}" for name, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_in_override, value)) + "]"
    if value is None or isinstance(value, bool):
        return _keyword(value)
    return repr(value)


def _keyword(value: bool | None) -> str:
    """``null``, ``true`` or ``false``."""
    return "null" if value is None else str(value).lower()


class Layers:
    """Nested values in layers, and the origin of each. A later layer wins; mappings are merged."""

    def __init__(self) -> None:
        self.values: Values = {}
        self.origins: dict[str, str] = {}
        """The origin of each value that is no mapping, by its dotted key."""
        self.removed: dict[str, str] = {}
        """The origin of each ``~key`` that removed a value, by that key."""

    def put(self, key: str, value: Any, origin: Callable[[str], str]) -> None:
        """Lay ``value`` over what is at ``key`` (dotted; ``""`` is the root).

        Args:
            key: the dotted key.
            value: the value; a mapping is merged, anything else replaces what is there.
            origin: maps a dotted key to the place its value came from.
        """
        if isinstance(value, dict) and (value or isinstance(self.get(key), dict)):
            for name, child in value.items():
                if not isinstance(name, str) or not name or "." in name:
                    problem = f"expected texts without dots as the keys of a mapping, not {name!r}"
                    raise RecipeError(problem, origin(key), "", key)
                self.put(f"{key}.{name}" if key else name, child, origin)
            return
        self.drop(key)
        *path, last = key.split(".")
        parent = self.values
        for depth, name in enumerate(path, 1):
            if not isinstance(parent.get(name), dict):
                self.drop(".".join(path[:depth]))
                parent[name] = {}
            parent = parent[name]
        parent[last] = value
        self.origins[key] = origin(key)

    def drop(self, key: str) -> bool:
        """Remove what is at ``key``; return whether there was anything."""
        path, _, last = key.rpartition(".")
        parent = self.get(path)
        if not isinstance(parent, dict) or last not in parent:
            return False
        del parent[last]
        for each in [*self.origins]:
            if each == key or each.startswith(f"{key}."):
                del self.origins[each]
        return True

    def get(self, key: str) -> Any:
        """What is at ``key``, unresolved; None where nothing is."""
        value: Any = self.values
        for name in key.split(".") if key else ():
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def origin(self, key: str) -> str:
        """Where the value at ``key`` came from; for ``${lr}``, where ``lr`` came from."""
        key = self.source(key)
        while isinstance(value := self.get(key), dict) and value:
            key = f"{key}.{next(iter(value))}"
        while key not in self.origins and "." in key:
            key = key.rpartition(".")[0]
        return self.origins.get(key, "")

    def source(self, key: str) -> str:
        """The key that the value at ``key`` stands for: ``lr`` for ``${lr}``; else ``key`` itself."""
        seen = [key]
        while isinstance(value := self.get(seen[-1]), str) and (match := INTERPOLATION.fullmatch(value)):
            if match[1] in seen or self.get(match[1]) is None:
                break
            seen.append(match[1])
        return seen[-1]

    def resolved(self) -> Values:
        """The values with every ``${name}`` replaced.

        Raises:
            RecipeError: one names nothing or itself, or is more than a name; or the result is too large.
        """
        return _Resolver(self).resolved()


class _Resolver:
    """Replaces every ``${name}`` in layers of values."""

    def __init__(self, layers: Layers) -> None:
        self._layers, self._room = layers, MAX_SIZE

    def resolved(self) -> Values:
        return {name: self._resolve(value, name) for name, value in self._layers.values.items()}

    def _resolve(self, value: Any, key: str, depth: int = 0, within: tuple[str, ...] = ()) -> Any:
        """Resolve the value at ``key``, which is nested this deep; the names ``within`` led to it."""
        self._room -= len(value) if isinstance(value, str) else 1
        if self._room < 0 or depth > DEPTH:
            why = f"more than {MAX_SIZE:,} characters, or within more than {DEPTH} others"
            raise self._refusal(key, value, why)
        if isinstance(value, dict):
            children = value.items()
            return {name: self._resolve(each, f"{key}.{name}", depth + 1, within) for name, each in children}
        if isinstance(value, list):
            return [self._resolve(each, key, depth + 1, within) for each in value]
        if not isinstance(value, str) or "${" not in value:
            return value

        def replacement(match: re.Match[str]) -> Any:
            return self._named(match[1], value, key, depth, within)

        if match := INTERPOLATION.fullmatch(value):
            return replacement(match)
        text = INTERPOLATION.sub(lambda match: str(replacement(match)), value)
        if "${" in text:
            raise self._refusal(key, value, "`${…}` takes the name of a value, and nothing else")
        return text

    def _named(self, name: str, value: str, key: str, depth: int, within: tuple[str, ...]) -> Any:
        """The value that ``${name}`` stands for in the value at ``key``."""
        parent, _, last = name.rpartition(".")
        if name in within:
            raise self._refusal(key, value, "stands for itself")
        if not isinstance(holder := self._layers.get(parent), dict) or last not in holder:
            raise self._refusal(key, value, f"there is no `{name}`")
        return self._resolve(holder[last], name, depth + 1, (*within, name))

    def _refusal(self, key: str, value: Any, why: str) -> RecipeError:
        return RecipeError(why, self._layers.origin(key), "", f"{key} = {value!s:.60}")


def with_values(value: Any, values: Values) -> str:
    """A value as text, with the values of the settings that it names: ``${lr} (0.001)``."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {with_values(child, values)}" for name, child in value.items()) + "}"
    if isinstance(value, str) and (match := INTERPOLATION.fullmatch(value)):
        return f"{value} ({with_values(values.get(match[1]), values)})"
    return _keyword(value) if value is None or isinstance(value, bool) else str(value)
