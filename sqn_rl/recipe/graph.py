"""The wiring as data: which part reads which key, which part writes it, and the shapes and dtypes seen."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from sqn_rl.errors import RecipeError, did_you_mean
from sqn_rl.protocols import submodule
from sqn_rl.recipe.resources import Needs
from sqn_rl.types import dtype_name


@dataclass(frozen=True)
class Entry:
    """A tensor that flows between parts."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        """``observation [8, 128] uint8``."""
        return f"{self.key} {list(self.shape)} {self.dtype}"


@dataclass(frozen=True)
class Node:
    """One part in its slot."""

    slot: str
    part: str
    """The class's name."""
    says: str
    """The first sentence of the class's docstring."""
    reads: tuple[str, ...]
    """Keys, each written by another node."""
    writes: tuple[Entry, ...]


@dataclass
class Graph:
    """The parts of an agent, in the order in which data first reaches them."""

    nodes: list[Node] = field(default_factory=list)
    changes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By slot, or under ``settings``, the differences from another recipe, in a few words each."""
    needs: Needs | None = None
    """The memory and disk that a run needs."""
    notes: list[str] = field(default_factory=list)
    """What the user should know before the run."""

    def add(self, slot: str, part: object, reads: Iterable[str], writes: Mapping[str, Tensor]) -> None:
        """Add a part that was seen to read these keys and write these tensors."""
        entries = tuple(_entry(key, tensor) for key, tensor in writes.items())
        self.nodes.append(Node(slot, type(part).__name__, _sentence(type(part)), tuple(reads), entries))

    def writers(self) -> dict[str, Node]:
        """The node that writes each key."""
        return {entry.key: node for node in self.nodes for entry in node.writes}

    def edges(self) -> Iterator[tuple[Node, Node, Entry]]:
        """Each producer and consumer, and the entry that flows from one to the other."""
        writers = self.writers()
        for consumer in self.nodes:
            for key in consumer.reads:
                producer = writers[key]
                yield producer, consumer, next(entry for entry in producer.writes if entry.key == key)

    def arrows(self) -> Iterator[tuple[Node, Node, list[Entry]]]:
        """The edges, grouped by the two parts that they connect."""
        by_pair: dict[tuple[str, str], tuple[Node, Node, list[Entry]]] = {}
        for producer, consumer, entry in self.edges():
            pair = (producer.slot, consumer.slot)
            by_pair.setdefault(pair, (producer, consumer, []))[2].append(entry)
        yield from by_pair.values()

    def require_written(self, origin: Callable[[str], str]) -> None:
        """Refuse a key that a part reads and no part writes.

        Args:
            origin: maps a slot to the origin of its part.

        Raises:
            RecipeError: as :func:`require_produced`.
        """
        writers = self.writers()
        for node in self.nodes:
            require_produced(node.slot, node.part, node.reads, writers, origin(node.slot))


def require_produced(slot: str, part: str, keys: Iterable[Any], produced: Iterable[str], origin: str) -> None:
    """Refuse a key that no part produces; a nested one is written ``next.reward``.

    Raises:
        RecipeError: names the consumer, the key, and what is produced.
    """
    produced = list(produced)
    for name in (key if isinstance(key, str) else ".".join(key) for key in keys):
        if name not in produced:
            message = f"{part} reads `{name}`, which no part upstream produces"
            raise RecipeError(message, origin, did_you_mean(name, produced), slot)


def _sentence(kind: type) -> str:
    """The first sentence of a docstring, without markup and sources: ``Q = V + A − mean_a A``."""
    paragraph = (inspect.getdoc(kind) or "").partition("\n\n")[0].replace("``", "")
    unsourced = re.sub(
        r"\s*\(((eq|line)s?\.? |[^()]*\b(19|20)\d\d\b)[^()]*\)", "", " ".join(paragraph.split())
    )
    return re.split(r"\.(?=\s|$)", unsourced)[0]


def _entry(key: str, tensor: Tensor) -> Entry:
    return Entry(key, tuple(tensor.shape), dtype_name(tensor.dtype))


@contextmanager
def watch_outputs(module: nn.Module, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Collect what these submodules return while the block runs; None for one that did not return."""
    outputs: dict[str, Any] = {}

    def begin(name: str, _module: nn.Module, _inputs: Any) -> None:
        outputs[name] = None

    def end(name: str, _module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[name] = output

    handles = []
    for name in names:
        if (part := submodule(module, name)) is not None:
            handles += [
                part.register_forward_pre_hook(partial(begin, name)),
                part.register_forward_hook(partial(end, name)),
            ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
