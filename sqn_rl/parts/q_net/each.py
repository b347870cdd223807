"""Parts that are written for one network: one is made for each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl.errors import WiringError

Make = Callable[..., nn.Module]


def for_all(make: Make, layer: Make, members: int, *, features: bool) -> nn.Module:
    """A part for all networks: itself, if ``layer`` made all its parameters; else one for each network.

    Args:
        make: makes the part from ``layer``.
        layer: makes a layer from ``(in_features, out_features, members=)``; it says its ``members``.
        members: N, the number of networks.
        features: it reads features, as a head does, and not the observation.

    Raises:
        WiringError: those for each have parameters in common.
    """
    part = make(layer=partial(layer, members=members))
    owners = (module for module in part.modules() if list(module.parameters(recurse=False)))
    if all(getattr(owner, "members", None) == members for owner in owners):
        return part
    parts = [part] if members == 1 else [make(layer=partial(layer, members=1)) for _ in range(members)]
    return Each(parts, features=features)


class Each(nn.Module):
    """One part for each network, called in turn. They share no parameter.

    What ``prepare`` of an encoder makes of the observation, where it has one, is made once for all.

    Args:
        parts: alike; each answers ``[B, …]``, or ``[1, B, …]`` as a layer for one member does.
        features: each reads its own network's features; else all read the observation.

    Raises:
        WiringError: two of the parts have a parameter in common.
    """

    def __init__(self, parts: list[nn.Module], *, features: bool) -> None:
        super().__init__()
        self.parts, self.features = nn.ModuleList(parts), features
        self._prepare = getattr(parts[0], "prepare", None)
        self._rank = 3 if hasattr(parts[0], "distribution") else 2
        if sum(len([*part.parameters()]) for part in parts) > len([*self.parameters()]):
            name = type(parts[0]).__name__
            raise WiringError("q_net", f"q_net: all networks would share the parameters of one {name}")

    @property
    def out_features(self) -> Any:
        """As the parts say."""
        return self.parts[0].out_features

    @property
    def distribution(self) -> Any:
        """As the parts say."""
        return self.parts[0].distribution

    def first(self, observation: Tensor) -> Tensor:
        """What an encoder says for the first network alone, ``[B, *S]`` → ``[1, B, F]``."""
        return self._lead(self.parts[0](observation), observation.shape[0])

    def forward(self, x: Tensor) -> Tensor:
        """Observation ``[B, *S]``, or features ``[N, B, F]``, ``[1, B, F]`` or ``[B, F]`` → ``[N, B, …]``.

        Raises:
            WiringError: an answer is not ``[B, out_features]``, or of heads not ``[B, A]`` or ``[B, A, K]``.
        """
        x = x if self._prepare is None else self._prepare(x)
        inputs = x.expand(len(self.parts), -1, -1) if self.features else [x] * len(self.parts)
        answers = (part(own) for part, own in zip(self.parts, inputs, strict=True))
        return torch.cat([self._lead(answer, inputs[0].shape[0]) for answer in answers])

    def _lead(self, answer: Tensor, batch: int) -> Tensor:
        """``[B, …]`` or ``[1, B, …]`` → ``[1, B, …]``."""
        led = answer if answer.dim() > self._rank else answer.unsqueeze(0)
        fits = led.dim() == self._rank + 1 and led.shape[:2] == (1, batch)
        if fits and (self.features or led.shape[2] == self.out_features):
            return led
        expected = [batch, *("AK"[: self._rank - 1] if self.features else [self.out_features])]
        name, shape, of_one = type(self.parts[0]).__name__, list(answer.shape), ", ".join(map(str, expected))
        raise WiringError("q_net", f"q_net: {name} gives {shape} for one network; expected [{of_one}]")
