"""Where each value came from: YAML files read with their line numbers, and layers of them that remember."""

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
"""``${lr}``: a value that is another one."""

ROOM = 2**18
"""The most values and characters that a recipe may have once its ``${name}`` are replaced."""


@dataclass(frozen=True)
class Document:
    """One YAML file."""

    shown: str
    """Its path as messages show it."""
    description: str
    """The comment on its first line, up to two spaces."""
    works_with: Mapping[str, tuple[str, ...]]
    """By slot, the only parts there that it works with: its comment ``# works with env=atari actor=…``."""
    values: Values
    """What it says, interpolations unresolved."""
    lines: Mapping[str, int]
    """The line of every value and list item, by dotted key: ``env.id``, ``defaults.1``."""
    text: Sequence[str]
    """Its lines."""

    @property
    def content(self) -> Values:
        """The values without the defaults list."""
        return {name: value for name, value in self.values.items() if name != "defaults"}

    def comment(self, key: str) -> str:
        """What the line of a value says behind it: in a run's ``recipe.yaml`` where the value came from."""
        line = self.text[self.lines[key] - 1] if key in self.lines else ""
        return line.rpartition("  # ")[2] if "  # " in line else ""

    def origin(self, key: str) -> str:
        """``recipes/x.yaml:12``; of the nearest enclosing value that has a line."""
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        return f"{self.shown}:{self.lines[key]}" if key in self.lines else self.shown


def read(path: Path, shown: str) -> Document:
    """Read a YAML file.

    Args:
        path: where it is.
        shown: how messages call it.

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
    """The name of the part whose file in ``components/`` is the origin of a value; empty if it is another."""
    file = re.search(rf"components/{slot}/(.+)\.yaml:\d+$", origin)
    return file[1] if file else ""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that :func:`read`, or another reader, would take for something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - of the class, as in PyYAML
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()), *resolvers]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """On one line."""
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
    """``key=value``, as one says it on the command line to have just this value."""
    return f"{key}={_overriding(value)}"


def _overriding(value: Any) -> str:
    if isinstance(value, str):
        escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + match[2].replace("'", "\\'"), value)
        return value if PLAIN.fullmatch(value) else f"'{escaped}'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_overriding(child)}" for name, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_overriding, value)) + "]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


class Layers:
    """Nested values, laid over each other, and the origin of each. A later layer wins; mappings merge."""

    def __init__(self) -> None:
        self.values: Values = {}
        self.origins: dict[str, str] = {}
        """By the dotted key of each value that is no mapping."""

    def put(self, key: str, value: Any, origin: Callable[[str], str]) -> None:
        """Lay ``value`` over what is at ``key`` (dotted; ``""`` is the root).

        Args:
            key: where.
            value: what; a mapping is merged, anything else replaces.
            origin: where the value at a dotted key came from.
        """
        if isinstance(value, dict) and (value or isinstance(self.get(key), dict)):
            for name, child in value.items():
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
        """Forget what is at ``key``; says whether there was anything."""
        path, _, last = key.rpartition(".")
        parent = self.get(path)
        if not isinstance(parent, dict) or last not in parent:
            return False
        del parent[last]
        self.origins = {k: o for k, o in self.origins.items() if k != key and not k.startswith(f"{key}.")}
        return True

    def get(self, key: str) -> Any:
        """What is at ``key``, unresolved; None where nothing is."""
        value: Any = self.values
        for name in key.split(".") if key else ():
            value = value.get(name) if isinstance(value, dict) else None
        return value

    def origin(self, key: str) -> str:
        """Where the value at ``key`` came from; of ``${lr}``, where ``lr`` came from."""
        key = self.source(key)
        while isinstance(value := self.get(key), dict) and value:
            key = f"{key}.{next(iter(value))}"
        while key not in self.origins and "." in key:
            key = key.rpartition(".")[0]
        return self.origins.get(key, "")

    def source(self, key: str) -> str:
        """The key whose value is meant by the one at ``key``: of ``${lr}`` it is ``lr``."""
        seen = [key]
        while isinstance(value := self.get(seen[-1]), str) and (match := INTERPOLATION.fullmatch(value)):
            if match[1] in seen or self.get(match[1]) is None:
                break
            seen.append(match[1])
        return seen[-1]

    def resolved(self) -> Values:
        """The values with every ``${name}`` replaced.

        Raises:
            RecipeError: one names nothing, or itself, or is more than a name; or all together are too much.
        """
        room = ROOM

        def refusal(key: str, value: Any, why: str) -> RecipeError:
            return RecipeError(why, self.origin(key), "", f"{key} = {value!s:.60}")

        def resolve(value: Any, key: str, depth: int = 0, within: tuple[str, ...] = ()) -> Any:
            """The value at ``key``, within so many others, to which these names led."""
            nonlocal room
            room -= len(value) if isinstance(value, str) else 1
            if room < 0 or depth > DEPTH:
                raise refusal(
                    key, value, f"more than {ROOM:,} characters, or within more than {DEPTH} others"
                )
            if isinstance(value, dict):
                return {
                    name: resolve(each, f"{key}.{name}", depth + 1, within) for name, each in value.items()
                }
            if isinstance(value, list):
                return [resolve(each, key, depth + 1, within) for each in value]
            if not isinstance(value, str) or "${" not in value:
                return value

            def meant(match: re.Match[str]) -> Any:
                name = match[1]
                parent, _, last = name.rpartition(".")
                if name in within:
                    raise refusal(key, value, "stands for itself")
                if not isinstance(holder := self.get(parent), dict) or last not in holder:
                    raise refusal(key, value, f"there is no `{name}`")
                return resolve(holder[last], name, depth + 1, (*within, name))

            if match := INTERPOLATION.fullmatch(value):
                return meant(match)
            text = INTERPOLATION.sub(lambda match: str(meant(match)), value)
            if "${" in text:
                raise refusal(key, value, "`${…}` takes the name of a value, and nothing else")
            return text

        return {name: resolve(value, name) for name, value in self.values.items()}


def with_values(value: Any, values: Values) -> str:
    """A value as text, with those of the settings that it names in brackets: ``${lr} (0.001)``."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {with_values(child, values)}" for name, child in value.items()) + "}"
    if isinstance(value, str) and (match := INTERPOLATION.fullmatch(value)):
        return f"{value} ({with_values(values.get(match[1]), values)})"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
