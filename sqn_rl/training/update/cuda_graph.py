"""Record the kernels of an update as a CUDA graph, which launches all of them at once."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from sqn_rl.errors import first_line
from sqn_rl.parts.foreach import copy_each
from sqn_rl.training.update.compiling import VARIANTS, warn_not_compiled
from sqn_rl.types import Batch

T = TypeVar("T")

Kind = tuple[tuple[str, torch.Size, torch.dtype], ...]
"""The name, shape and dtype of each of a batch's columns."""


class CudaGraph(NamedTuple, Generic[T]):
    """A graph that was recorded for one kind of batch."""

    columns: dict[str, Tensor]
    """The columns that its kernels read."""
    graph: torch.cuda.CUDAGraph
    result: T
    """The tensors that its kernels write."""

    def __call__(self, batch: Batch) -> T:
        """Compute the result of a batch, in new tensors."""
        for name, column in batch.columns().items():
            self.columns[name].copy_(column)
        self.graph.replay()
        written: list[Tensor] = []
        copies: list[Tensor] = []
        result: T = _new_tensors(self.result, written, copies)
        copy_each(copies, written)  # one kernel for all
        return result


def _new_tensors(result: Any, written: list[Tensor], copies: list[Tensor]) -> Any:
    """The same result with new tensors, in ``copies``, which are still to be copied from ``written``."""
    if isinstance(result, Tensor):
        written.append(result)
        copies.append(torch.empty_like(result))
        return copies[-1]
    if isinstance(result, dict):
        return {name: _new_tensors(each, written, copies) for name, each in result.items()}
    if isinstance(result, tuple):
        parts = [_new_tensors(each, written, copies) for each in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    return result


class CudaGraphs(Generic[T]):
    """A function of batches on a GPU, recorded once for each kind of batch.

    Launching kernels one by one takes longer than small networks compute. The first call for a kind of batch
    runs as usual, the second records, and later ones replay what was recorded. Kernels read all tensors but
    the batch's where they were when they were recorded: those tensors may change, but not be replaced, and
    numbers that the function reads may not change. A function that cannot be recorded, such as one that waits
    for the GPU, always runs as usual, after a warning that says why.

    Args:
        compute: the function; it draws random numbers from ``generators`` or PyTorch's own only.
        name: its name in a warning.
        generators: replaying advances them as running does.
    """

    def __init__(
        self, compute: Callable[[Batch], T], name: str, generators: Iterable[torch.Generator]
    ) -> None:
        self._compute, self._name = compute, name
        self._generators = [each for each in generators if each.device.type == "cuda"]
        self._graphs: dict[Kind, CudaGraph[T] | None] = {}
        self._max_graphs = VARIANTS

    @property
    def recorded(self) -> bool:
        """Whether there is a recorded graph."""
        return any(graph is not None for graph in self._graphs.values())

    def __call__(self, batch: Batch) -> T:
        """The result of the function."""
        kind = tuple((name, each.shape, each.dtype) for name, each in batch.columns().items())
        if graph := self._graphs.get(kind):
            return graph(batch)
        if kind in self._graphs and self._max_graphs:
            if graph := self._record(batch):
                self._graphs[kind] = graph
                return graph(batch)
        elif len(self._graphs) < self._max_graphs:
            self._graphs[kind] = None
            return self._run_watched(batch)
        return self._compute(batch)

    def _run_watched(self, batch: Batch) -> T:
        """Run as usual, and refuse to record a function that waits for the GPU."""
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            mode = torch.cuda.get_sync_debug_mode()
            torch.cuda.set_sync_debug_mode("warn")
            try:
                result = self._compute(batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        for each in found:
            message = str(each.message)
            if message.startswith("called a synchronizing"):
                self._refuse(f"it waits for the GPU, at {each.filename}:{each.lineno}")
            elif not message.startswith("Synchronization debug mode"):  # PyTorch's, once, about that mode
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        return result

    def _record(self, batch: Batch) -> CudaGraph[T] | None:
        """Record, without computing anything; None, after a warning, if that is impossible."""
        columns = {name: column.clone() for name, column in batch.columns().items()}
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The CUDA Graph is empty")  # after an error, which counts
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                    result = self._compute(Batch.of(columns))
        except RuntimeError as error:
            self._refuse(first_line(error))
            return None
        return CudaGraph(columns, graph, result)

    def _refuse(self, reason: str) -> None:
        warn_not_compiled(self._name, reason)
        self._max_graphs = 0

    def __getstate__(self) -> dict[str, object]:
        """Leave out the graphs, which exist only in this process."""
        return vars(self) | {"_graphs": {}}
