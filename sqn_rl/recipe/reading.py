"""Read YAML and JSON from untrusted authors: only as data, within limits, and without blocking on pipes."""

import json
import os
import re
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import yaml

from sqn_rl.errors import SqnError

YAML_BYTES = 2**18
"""The largest size of a YAML file; runs write far smaller ones."""

JSON_BYTES = 2**24
"""The largest size of a JSON file, or of a line of a log; runs write far smaller ones."""

NODES = 10_000
"""The most values that a YAML file may have."""

DEPTH = 32
"""The deepest nesting of values in a YAML file."""

BITS = 64
"""The longest whole number in a YAML file, in bits."""

TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")
}
"""YAML's kinds of values that JSON has too, and ``<<``, which merges mappings."""


def printable(text: str) -> str:
    r"""A text that is safe to show in one line of a terminal, a page or a log, even if it is hostile.

    Characters that act on a terminal, reorder a line, or cannot be seen are escaped as in Python: ``\x1b``.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


class DataError(SqnError, ValueError):
    """A path is not a regular file, or the file does not contain what was expected.

    Args:
        path: the file.
        message: what is wrong.
        line: the line of the mistake, counted from 1; 0 if it is not known.
    """

    def __init__(self, path: Path, message: str, line: int = 0) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {message}")
        self.message, self.line = message, line


def is_there(path: Path) -> bool:
    """Whether there is anything at a path, even a broken link.

    Raises:
        DataError: that cannot be determined, as a folder above it may not be read.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    return True


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")


def open_file(path: Path) -> BinaryIO:
    """Open a file to read it, without waiting for a pipe or a device.

    Raises:
        DataError: it cannot be read, or is not a regular file.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        if stat.S_ISREG(os.fstat(file).st_mode):
            return os.fdopen(file, "rb")
        os.close(file)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    raise DataError(path, "cannot be read: not a file")


def read_file(path: Path, most: int) -> bytes:
    """The content of a file of at most ``most`` bytes.

    Raises:
        DataError: it cannot be read, is not a regular file, or is larger.
    """
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataError(path, f"cannot be read: larger than {most:,} bytes")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        DataError: the file cannot be read, or does not contain one.
    """
    return _parse_object(read_file(path, JSON_BYTES), path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a log, one per line; none if the file does not exist.

    Raises:
        DataError: the file cannot be read, or a line is not a JSON object.
    """
    if not is_there(path):
        return
    with open_file(path) as file:
        for number in count(1):
            if not (line := read_line(file, path, number)):
                return
            yield _parse_object(line, path, number)


def read_line(file: BinaryIO, path: Path, number: int) -> bytes:
    """The next line of an open log, which has this number; empty at the end.

    Raises:
        DataError: it is longer than a row can be; the rest of it is not read.
    """
    line = file.readline(JSON_BYTES + 1)
    if len(line) > JSON_BYTES:
        raise DataError(path, f"a line of more than {JSON_BYTES:,} bytes", number)
    return line


def _parse_object(text: bytes, path: Path, line: int = 0) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not JSON: {error}", line) from error
    if not isinstance(value, dict):
        raise DataError(path, "not a JSON object", line)
    return value


def read_yaml(path: Path) -> tuple[str, Any, yaml.Node | None]:
    """The text of a YAML file, its value, and its root node, whose nodes know their lines.

    Raises:
        DataError: the file cannot be read, is not YAML, or has something that no recipe needs.
    """
    try:
        text = read_file(path, YAML_BYTES).decode()
    except UnicodeDecodeError as error:
        raise DataError(path, f"cannot be read: {error}") from error
    return text, *parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text, and its root node, whose nodes know their lines.

    Raises:
        DataError: it is not YAML, or has something that no recipe needs; of the file at ``path``.
    """
    if len(text.encode()) > YAML_BYTES:
        raise DataError(path, f"larger than {YAML_BYTES:,} bytes")
    try:
        loader = Loader(text, path)
        node = loader.get_single_node()
        return None if node is None else loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        unfinished = isinstance(error, yaml.scanner.ScannerError) or "flow" in (error.context or "")
        mark = (error.context_mark if unfinished else None) or error.problem_mark
        raise DataError(path, f"not YAML: {error.problem}", mark.line + 1 if mark else 0) from error
    except yaml.YAMLError as error:
        raise DataError(path, f"not YAML: {' '.join(str(error).split())}") from error


class Loader(yaml.SafeLoader):
    """YAML as OmegaConf reads it: ``1e-3`` is a number, no text is a date, and no key occurs twice.

    While parsing, it refuses aliases, values of a kind that JSON lacks, and too deep or too many values.
    """

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self._path, self._depth, self._count = path, 0, 0

    def get_event(self) -> yaml.Event:
        """The next event of the parser, if it is within the limits."""
        event = super().get_event()
        self._count += 1
        if isinstance(event, yaml.CollectionStartEvent | yaml.CollectionEndEvent):
            self._depth += 1 if isinstance(event, yaml.CollectionStartEvent) else -1
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, "an alias; write the value where it stands, or `${name}`")
        if self._depth > DEPTH or self._count > NODES:
            self._refuse(event, f"more than {NODES:,} values, or one within more than {DEPTH} others")
        return event

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        kind, value = node.tag.rpartition(":")[2], None
        if node.tag not in TAGS:
            self._refuse(node, f"a value of the kind `{kind}`, which no recipe has")
        try:
            value = super().construct_object(node, deep)
        except (LookupError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            self._refuse(node, f"{node.value!r:.40} is no {kind}")
        if isinstance(value, int) and value.bit_length() > BITS:
            self._refuse(node, f"a whole number of more than {BITS} bits")
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node."""
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                context, problem = "while constructing a mapping", f"found duplicate key {key.value}"
                raise yaml.constructor.ConstructorError(context, node.start_mark, problem, key.start_mark)
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep=deep)

    def _refuse(self, where: yaml.Event | yaml.Node, message: str) -> NoReturn:
        mark = where.start_mark
        raise DataError(self._path, message, mark.line + 1 if mark else 0)


FLOAT = re.compile(
    r"""[-+]?[0-9]+(_[0-9]+)*\.[0-9_]*([eE][-+]?[0-9]+)?$
    |[-+]?[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+)$
    |\.[0-9]+(_[0-9]+)*([eE][-+][0-9]+)?$
    |[-+]?[0-9]+(_[0-9]+)*(:[0-5]?[0-9])+\.[0-9_]*$
    |[-+]?\.(inf|Inf|INF)$
    |\.(nan|NaN|NAN)$""",
    re.VERBOSE,
)
"""Numbers with a point or an exponent; in YAML 1.1 an exponent would need a point and a sign."""

Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in Loader.yaml_implicit_resolvers.items()
}
