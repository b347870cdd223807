"""The noise of noisy layers: drawn for a whole module at once, and no part of what is learned."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Protocol, TypeVar, runtime_checkable

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


class Buffers:
    """The persistent buffers of two like modules, such as running statistics; not those of noisy layers.

    Args:
        target: where they are written.
        online: where they are read.
    """

    def __init__(self, target: Network, online: Network) -> None:
        pairs = zip(target.modules(), online.modules(), strict=True)
        self._held: list[tuple[Any, Any, str]] = [  # as a module may assign another tensor
            (own._buffers, other._buffers, name)
            for own, other in pairs
            for name, buffer in other._buffers.items()
            if buffer is not None and name not in other._non_persistent_buffers_set
            if not isinstance(other, NoisyLayer)
        ]

    @torch.no_grad()
    def copy(self) -> None:
        """Copy them, in place."""
        if self._held:
            target = [own[name] for own, _, name in self._held]
            torch._foreach_copy_(target, [other[name] for _, other, name in self._held])


Module = TypeVar("Module", bound=nn.Module)


def sharing(module: Module) -> Module:
    """A view of a module to act with: the same parameters and buffers, in eval mode, with a noise of its own.

    It follows every change of the module's parameters and buffers, in place, by another tensor, or by another
    device; of a noisy layer's buffers only changes in place of the persistent ones, as others may be noise.
    """
    memo: dict[int, Any] = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}
    for each in module.modules():
        memo[id(each._parameters)] = each._parameters
        if not isinstance(each, NoisyLayer):
            memo |= {id(held): held for held in (each._buffers, *each._buffers.values())}
    view = deepcopy(module, memo).eval()
    for layer in Noise(view).layers:
        layer.set_noise(None)
    return view
