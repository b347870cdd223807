"""The dense layer: an affine map for several networks at once."""

import math

import torch
from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, typed


class Dense(nn.Module):
    """``y_n = x_n W_n + b_n`` for N networks in one batched matrix product.

    Each network's parameters are initialised independently, uniformly in ±1/√in_features, as in
    :class:`torch.nn.Linear`.

    Args:
        in_features: F, the size of an input.
        out_features: G, the size of an output.
        members: N, the number of networks. They share no parameters.
    """

    @typed
    def __init__(self, in_features: Count, out_features: Count, *, members: Count) -> None:
        super().__init__()
        self.members = members
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(members, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, F]`` (one input for all networks) or ``[N, B, F]`` (or ``[1, B, F]``) → ``[N, B, G]``."""
        if x.dim() < 3 or len(x) < self.members:
            x = x.expand(self.members, -1, -1)
        if self.members > 1:
            return torch.bmm(x, self.weight) + self.bias
        weight, bias = self.weight.squeeze(0), self.bias.flatten()  # bmm would take three times as long
        return torch.addmm(bias, x.squeeze(0), weight).unsqueeze(0)
