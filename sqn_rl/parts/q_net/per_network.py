"""Encoders and heads for one network at a time: one copy per network."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sqn_rl.errors import WiringError, not_a_module
from sqn_rl.protocols import Distribution, submodule

Make = Callable[..., nn.Module]


@runtime_checkable
class ForMembers(Protocol):
    """A layer that serves several networks at once."""

    members: int
    """N, how many."""


@runtime_checkable
class Preparing(Protocol):
    """An encoder for one network of which a part can be done once for all networks."""

    def prepare(self, observation: Tensor) -> Tensor:
        """The observation, such that to prepare it again changes nothing."""


@runtime_checkable
class Distributional(Protocol):
    """A head whose predictions are K numbers for an action."""

    distribution: Distribution
    """What they stand for."""


def is_distributional(head: nn.Module) -> bool:
    """Whether a head has a ``distribution``, which mostly is a submodule."""
    return isinstance(head, Distributional) or submodule(head, "distribution") is not None


def per_network(make: Make, layer: Make, members: int, *, features: bool) -> nn.Module:
    """Make a part for all networks: one module if ``layer`` made all its parameters, else one per network.

    Args:
        make: makes the part from ``layer``.
        layer: makes a layer from ``(in_features, out_features, members=)``; the layer has ``members``.
        members: N, the number of networks.
        features: whether the part reads features, as a head does, and not the observation.

    Raises:
        WiringError: it makes no module, or the modules of two networks share parameters.
    """
    part = make(layer=partial(layer, members=members))
    if not isinstance(part, nn.Module):
        raise not_a_module("head" if features else "encoder", part)
    owners = (module for module in part.modules() if list(module.parameters(recurse=False)))
    if all(isinstance(owner, ForMembers) and owner.members == members for owner in owners):
        return part
    parts = [part] if members == 1 else [make(layer=partial(layer, members=1)) for _ in range(members)]
    return PerNetwork(parts, features=features)


class PerNetwork(nn.Module):
    """One module per network, called in turn. They share no parameters.

    An encoder's ``prepare``, if it has one, is applied to the observation once for all networks.

    Args:
        parts: modules of one kind; each returns ``[B, …]``, or ``[1, B, …]`` as a layer for one member does.
        features: whether each reads its own network's features; else all read the observation.

    Raises:
        WiringError: two of the modules share a parameter.
    """

    def __init__(self, parts: list[nn.Module], *, features: bool) -> None:
        super().__init__()
        self.parts, self.features = nn.ModuleList(parts), features
        self._prepare = parts[0].prepare if isinstance(parts[0], Preparing) else None
        self._rank = 3 if is_distributional(parts[0]) else 2
        if sum(len([*part.parameters()]) for part in parts) > len([*self.parameters()]):
            name = type(parts[0]).__name__
            raise WiringError("q_net", f"q_net: all networks would share the parameters of one {name}")

    @property
    def out_features(self) -> Any:
        """The encoders' number of features."""
        return self.parts[0].out_features

    def first(self, observation: Tensor) -> Tensor:
        """The features of the first network alone, ``[B, *S]`` → ``[1, B, F]``."""
        return self._with_network_dim(self.parts[0](observation), observation.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """Observation ``[B, *S]``, or features ``[N, B, F]``, ``[1, B, F]`` or ``[B, F]`` → ``[N, B, …]``.

        Raises:
            WiringError: an output is not ``[B, out_features]``, or of a head not ``[B, A]`` or ``[B, A, K]``.
        """
        x = x if self._prepare is None else self._prepare(x)
        inputs = x.expand(len(self.parts), -1, -1) if self.features else [x] * len(self.parts)
        outputs = (part(own) for part, own in zip(self.parts, inputs, strict=True))
        return torch.cat([self._with_network_dim(output, inputs[0].shape[0]) for output in outputs])

    def _with_network_dim(self, output: Tensor, batch: int) -> Tensor:
        """Add the networks' dimension if it is missing: ``[B, …]`` or ``[1, B, …]`` → ``[1, B, …]``."""
        full = output if output.dim() > self._rank else output.unsqueeze(0)
        fits = full.dim() == self._rank + 1 and full.shape[:2] == (1, batch)
        if fits and (self.features or full.shape[2] == self.out_features):
            return full
        expected = [batch, *("AK"[: self._rank - 1] if self.features else [self.out_features])]
        name, shape, of_one = type(self.parts[0]).__name__, list(output.shape), ", ".join(map(str, expected))
        raise WiringError("q_net", f"q_net: {name} gives {shape} for one network; expected [{of_one}]")
