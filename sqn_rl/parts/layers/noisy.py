"""The noisy layer: an affine map with random parameters, whose spread is learned."""

import math

import torch
from torch import Tensor, nn

from sqn_rl.parts.arguments import Count, NotNegative, typed
from sqn_rl.parts.layers.dense import Dense


class NoisyDense(nn.Module):
    """``y = (μ_w + σ_w ⊙ ε_w)ᵀ x + μ_b + σ_b ⊙ ε_b`` for N networks, with factorised Gaussian noise.

    ``ε_w = f(ε_in) f(ε_out)ᵀ`` and ``ε_b = f(ε_out)`` with ``f(x) = sgn(x) √|x|``, independent for each
    network (Fortunato et al. 2018, eq. 9-11). The factors are applied to input and output, so that no noisy
    weight matrix is computed: ``y = μ(x) + f(ε_out) ⊙ σ(f(ε_in) ⊙ x)``, where μ and σ are affine maps.

    :class:`sqn_rl.parts.noise.Noise` sets the noise of a whole network, which stays until it is set again;
    before that the layer is μ. The noise is a constant: only μ and σ get gradients. ``state_dict`` does not
    contain it.

    Args:
        in_features: F, the size of an input.
        out_features: G, the size of an output.
        members: N, the number of networks. They share no parameters and no noise.
        sigma: σ₀ ≥ 0; every σ begins as σ₀/√F, and every μ uniformly in ±1/√F, as in :class:`Dense`.

    Raises:
        SettingError: σ₀ is negative.
    """

    @typed
    def __init__(
        self, in_features: Count, out_features: Count, *, members: Count, sigma: NotNegative
    ) -> None:
        super().__init__()
        self.mu = Dense(in_features, out_features, members=members)
        self.sigma = Dense(in_features, out_features, members=members)
        for parameter in self.sigma.parameters():
            nn.init.constant_(parameter, sigma / math.sqrt(in_features))
        self.noise_size = members * (in_features + out_features)
        self._noise: list[Tensor] = []  # f(ε_in), f(ε_out): a list, as setting a module's attribute is slow
        self._shape, self._sizes = (members, 1, -1), (in_features, out_features)

    def set_noise(self, noise: Tensor | None) -> None:
        """Use this noise until the next call: ``[noise_size]``, f(ε_in) and f(ε_out) per network; None: μ."""
        if noise is None:
            self._noise.clear()
        else:
            self._noise[:] = torch.split_with_sizes(noise.view(self._shape), self._sizes, -1)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, F]`` (one input for all networks) or ``[N, B, F]`` (or ``[1, B, F]``) → ``[N, B, G]``."""
        if not self._noise:
            return self.mu(x)
        in_N1F, out_N1G = self._noise
        return torch.addcmul(self.mu(x), self.sigma(x * in_N1F), out_N1G)
