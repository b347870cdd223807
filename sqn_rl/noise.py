"""The noise of noisy layers: drawn for a whole module at once, and no part of what is learned."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class NoisyLayer(Protocol):
    """A layer that perturbs its output; the module's others are left alone."""

    noise_size: int
    """How many numbers one noise is."""

    def set_noise(self, noise: Tensor | None) -> None:
        """Use this noise from now on: f(ε), ``[noise_size]``; None: the mean weights."""


class Network(Protocol):
    """What noise is drawn for: a module."""

    def modules(self) -> Iterator[nn.Module]:
        """As of every module."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of every module."""


class Noise:
    """The noise of all noisy layers in a module.

    Two modules that share a noisy layer share its noise; :func:`sharing` makes one that does not.

    Args:
        module: where they are looked for. Until the first :meth:`redraw` it has what noise it had.
    """

    def __init__(self, module: Network) -> None:
        self.layers = [layer for layer in module.modules() if isinstance(layer, NoisyLayer)]
        self._sizes = [layer.noise_size for layer in self.layers]
        self._total = sum(self._sizes)
        self._like = next(module.parameters(), torch.empty(0))
        self.drawn: Tensor | None = None
        """The last noise of all of them, ``[Σ noise_size]``; None before the first."""

    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Give every noisy layer a new noise: f(ε) with ε standard normal. Without one, nothing is drawn.

        Args:
            generator: where the module's parameters are; None: torch's own.
        """
        if not self.layers:
            return
        like = self._like
        epsilon = torch.randn(self._total, generator=generator, dtype=like.dtype, device=like.device)
        self.set(signed_root(epsilon))

    def set(self, drawn: Tensor) -> None:
        """Give the layers this noise, ``[Σ noise_size]``."""
        self.drawn = drawn
        for layer, part in zip(self.layers, torch.split_with_sizes(drawn, self._sizes), strict=True):
            layer.set_noise(part)


def signed_root(x: Tensor) -> Tensor:
    """f(x) = sgn(x) √|x|  (Fortunato et al. 2018, eq. 10-11). Any shape, kept."""
    return x.abs().sqrt_().copysign_(x)


Module = TypeVar("Module", bound=nn.Module)


def sharing(module: Module) -> Module:
    """A view of a module: the same parameters and persistent buffers, but a noise of its own, none yet.

    It follows all that changes the module's tensors in place, as optimizers and ``load_state_dict`` do.
    """
    memo = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}
    view = deepcopy(module, memo)
    for layer in Noise(view).layers:
        layer.set_noise(None)
    return view
