"""The noise of noisy layers, sampled for a whole module at once; it is not learned."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from sqn_rl.parts.foreach import copy_each


@runtime_checkable
class NoisyLayer(Protocol):
    """A layer with noise; :class:`Noise` ignores all other layers."""

    noise_size: int
    """The length of the layer's noise vector."""

    def set_noise(self, noise: Tensor | None) -> None:
        """Use this noise until the next call: f(ε), ``[noise_size]``; None: use the mean weights."""


class Network(Protocol):
    """A module with noisy layers."""

    def modules(self) -> Iterator[nn.Module]:
        """Like ``nn.Module.modules``."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Like ``nn.Module.parameters``."""


class Noise:
    """The noise of all noisy layers in a module.

    Two modules that share a noisy layer share its noise; an :func:`acting_view` has its own.

    Args:
        module: the module with the noisy layers, whose noise stays as it is until the first :meth:`sample`.
    """

    def __init__(self, module: Network) -> None:
        self.layers = [layer for layer in module.modules() if isinstance(layer, NoisyLayer)]
        self._sizes = [layer.noise_size for layer in self.layers]
        self._total = sum(self._sizes)
        self._like = next(module.parameters(), torch.empty(0))
        self.values: Tensor | None = None
        """The current noise of all layers, ``[Σ noise_size]``; None before the first sample."""

    def sample(self, generator: torch.Generator | None = None) -> None:
        """Sample new noise for every noisy layer: f(ε), ε ~ N(0, 1). Without noisy layers it does nothing.

        Args:
            generator: on the device of the module's parameters; None: torch's global generator.
        """
        if not self.layers:
            return
        like = self._like
        epsilon = torch.randn(self._total, generator=generator, dtype=like.dtype, device=like.device)
        self.set(signed_root(epsilon))

    def set(self, values: Tensor) -> None:
        """Set the noise of all layers, ``[Σ noise_size]``."""
        self.values = values
        for layer, part in zip(self.layers, torch.split_with_sizes(values, self._sizes), strict=True):
            layer.set_noise(part)


def signed_root(x: Tensor) -> Tensor:
    """f(x) = sgn(x) √|x|, elementwise  (Fortunato et al. 2018, eq. 10-11)."""
    return x.abs().sqrt_().copysign_(x)


class Buffers:
    """Copies persistent buffers, such as running statistics, between modules; not those of noisy layers.

    Args:
        target: the module whose buffers are written.
        online: the module whose buffers are read; of the same architecture.
    """

    def __init__(self, target: Network, online: Network) -> None:
        pairs = zip(target.modules(), online.modules(), strict=True)
        self._pairs = [  # by name, as a module may replace a buffer's tensor
            (own, other, name)
            for own, other in pairs
            if not isinstance(other, NoisyLayer)
            for name, _ in other.named_buffers(recurse=False)
            if name in other.state_dict()
        ]

    @torch.no_grad()
    def copy(self) -> None:
        """Copy the buffers, in place."""
        if self._pairs:
            target = [own.get_buffer(name) for own, _, name in self._pairs]
            copy_each(target, [other.get_buffer(name) for _, other, name in self._pairs])


Module = TypeVar("Module", bound=nn.Module)


def acting_view(module: Module) -> Module:
    """A view of a module for acting: the same parameters and buffers, in eval mode, with its own noise.

    It follows every change of the module's parameters and buffers: in place, to another tensor, or to another
    device. Of a noisy layer's buffers it follows only in-place changes of the persistent ones, as the others
    may hold noise.
    """
    # a module's own dictionaries are shared: only so does the view see a tensor that is put there later
    memo: dict[int, Any] = {id(tensor): tensor for tensor in module.state_dict(keep_vars=True).values()}
    for each in module.modules():
        memo[id(each._parameters)] = each._parameters
        if not isinstance(each, NoisyLayer):
            memo |= {id(held): held for held in (each._buffers, *each._buffers.values())}
    view = deepcopy(module, memo).eval()
    for layer in Noise(view).layers:
        layer.set_noise(None)
    return view
