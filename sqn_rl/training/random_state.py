"""Torch's global generators: modules of PyTorch draw from nothing else, and a run must not share them."""

from collections.abc import Sequence
from threading import RLock
from typing import Any

import torch
from torch import Tensor

OF_MODULES = 2**31
"""Added to the seed of a generator of ours, for what modules draw beside it: not the same numbers."""

_TURN = RLock()
"""Held by the thread whose state torch's global generators have."""


class RandomState:
    """A state of torch's global generators that belongs to one run.

    Inside ``with state:`` what is drawn from the global generators goes on from this state, and afterwards
    they are as they were. One thread is inside at a time, so runs in threads of one process take turns; a
    thread that draws from them outside of any ``RandomState`` meanwhile is not kept out.

    Args:
        seed: as of :func:`torch.manual_seed`.
        device: of the run: its generator counts besides that of the CPU.
    """

    def __init__(self, seed: int, device: torch.device | str) -> None:
        devices = [torch.device("cpu"), torch.device(device)]
        devices = devices[:1] if devices[1].type in ("cpu", "meta") else devices
        self._generators = [_generator(each) for each in devices]
        self._states = [torch.Generator(each).manual_seed(seed).get_state() for each in devices]
        self._others: list[Tensor] | None = None  # what they were outside, while inside

    def __enter__(self) -> None:
        _TURN.acquire()
        self._others = self._swap(self._states)

    def __exit__(self, *_: object) -> None:
        assert self._others is not None
        self._states, self._others = self._swap(self._others), None
        _TURN.release()

    def state_dict(self) -> list[Tensor]:
        """The states of the generators, as they are now."""
        return self._states if self._others is None else [each.get_state() for each in self._generators]

    def load_state_dict(self, states: Sequence[Tensor] | Tensor) -> None:
        """Go on from there, inside; from a single tensor for the CPU's generator only.

        Raises:
            RuntimeError: it is no state of a generator.
        """
        states = [states] if isinstance(states, Tensor) else states
        for generator, state in zip(self._generators, states, strict=False):
            generator.set_state(state)

    def _swap(self, states: Sequence[Tensor]) -> list[Tensor]:
        before = []
        for generator, state in zip(self._generators, states, strict=True):
            before.append(generator.get_state())
            generator.set_state(state)
        return before


def _generator(device: torch.device) -> Any:
    """The global generator of a device."""
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "mps":
        return torch.mps._get_default_mps_generator()
    module = torch.get_device_module(device)
    module.init()
    return module.default_generators[module.current_device() if device.index is None else device.index]
