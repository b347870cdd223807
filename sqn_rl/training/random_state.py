"""The state of torch's global generators, from which modules of PyTorch draw: each run has its own."""

from collections.abc import Sequence
from threading import RLock
from typing import Any

import torch
from torch import Tensor

GLOBAL_SEED_OFFSET = 2**31
"""Added to a seed for the global generators, so that they do not repeat the run's own generator."""

RESUMED_SEED_OFFSET = 2**64
"""Added to a seed, with the number of steps, for the episodes that replace lost ones: no others have them."""

_TURN = RLock()
"""Held by the thread that uses torch's global generators."""


class RandomState:
    """A state of torch's global generators that belongs to one run.

    Inside ``with state:`` the global generators continue from this state; afterwards they are restored. One
    thread is inside at a time, so runs in threads of one process take turns; a thread that uses the global
    generators outside of any ``RandomState`` is not kept out.

    Args:
        seed: as for :func:`torch.manual_seed`.
        device: the run's device; its global generator is included besides that of the CPU.
    """

    def __init__(self, seed: int, device: torch.device | str) -> None:
        devices = [torch.device("cpu"), torch.device(device)]
        devices = devices[:1] if devices[1].type in ("cpu", "meta") else devices
        self._generators = [_generator(each) for each in devices]
        self._states = [torch.Generator(each).manual_seed(seed).get_state() for each in devices]
        self._others: list[Tensor] | None = None  # the program's states, while inside

    def __enter__(self) -> None:
        _TURN.acquire()
        try:
            self._others = self._swap(self._states)
        except BaseException:
            _TURN.release()
            raise

    def __exit__(self, *_: object) -> None:
        assert self._others is not None
        try:
            self._states, self._others = self._swap(self._others), None
        finally:
            _TURN.release()

    def state_dict(self) -> list[Tensor]:
        """The current states of the generators."""
        return self._states if self._others is None else [each.get_state() for each in self._generators]

    def load_state_dict(self, states: Sequence[Tensor] | Tensor) -> None:
        """Load states, inside the context; a single tensor is the state of the CPU's generator.

        Raises:
            RuntimeError: a tensor is not a generator's state.
        """
        states = [states] if isinstance(states, Tensor) else states
        for generator, state in zip(self._generators, states, strict=False):
            generator.set_state(state)

    def _swap(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Set the generators to these states, and return their states before."""
        before = []
        for generator, state in zip(self._generators, states, strict=True):
            before.append(generator.get_state())
            generator.set_state(state)
        return before


class _MPS:
    """The only generator of Apple's GPUs, for which PyTorch has no object."""

    get_state, set_state = torch.mps.get_rng_state, torch.mps.set_rng_state


def _generator(device: torch.device) -> Any:
    """The global generator of a device."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "mps":
        return _MPS
    module = torch.get_device_module(device)
    module.init()
    return module.default_generators[module.current_device() if device.index is None else device.index]
