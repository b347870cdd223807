"""The wiring as data: which part reads what, and who writes it, with shapes and dtypes as they really are."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sqn_rl.catalogue import did_you_mean
from sqn_rl.errors import RecipeError


@dataclass(frozen=True)
class Entry:
    """What flows under one key."""

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
    reads: tuple[str, ...]
    """Keys, each written by another node."""
    writes: tuple[Entry, ...]


@dataclass
class Graph:
    """The parts of an agent, in the order in which data first reaches them."""

    nodes: list[Node] = field(default_factory=list)

    def add(self, slot: str, part: object, reads: Iterable[str], writes: Mapping[str, Tensor]) -> None:
        """Add a part that was seen to read these keys and write these tensors."""
        entries = tuple(_entry(key, tensor) for key, tensor in writes.items())
        self.nodes.append(Node(slot, type(part).__name__, tuple(reads), entries))

    def writers(self) -> dict[str, Node]:
        """Who writes each key."""
        return {entry.key: node for node in self.nodes for entry in node.writes}

    def edges(self) -> Iterator[tuple[Node, Node, Entry]]:
        """Producer, consumer, and what flows."""
        writers = self.writers()
        for consumer in self.nodes:
            for key in consumer.reads:
                producer = writers[key]
                yield producer, consumer, next(entry for entry in producer.writes if entry.key == key)

    def require(
        self, slot: str, part: object, keys: Iterable[Any], produced: Iterable[str], origin: str
    ) -> None:
        """Refuse a key that nobody upstream produces; a nested one is written ``next.reward``.

        Raises:
            RecipeError: names the consumer, the key, and what is produced.
        """
        produced = list(produced)
        for name in (key if isinstance(key, str) else ".".join(key) for key in keys):
            if name not in produced:
                message = f"{slot}: {type(part).__name__} reads `{name}`, which no part upstream produces"
                raise RecipeError(message, origin, did_you_mean(name, produced))


def _entry(key: str, tensor: Tensor) -> Entry:
    return Entry(key, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
