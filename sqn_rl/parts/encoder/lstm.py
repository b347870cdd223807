"""An LSTM over another encoder: features that remember the episode  (R2D2, Kapturowski et al. 2019).

Legend: B environments or sequences, T steps of a sequence, H units, W = 2 H numbers of a state.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl.parts.memory import Memory


class LSTM(nn.Module):
    """``h_t = LSTM(h_{t−1}; φ(s_t), a_{t−1}, r_{t−1})``, φ another encoder, a one-hot  (section 2.3).

    torch's ``nn.LSTM``, one for each network, as it is faster than a batched one.

    Args:
        encoder: makes φ from ``observation_shape`` and ``layer``; it has ``out_features``.
        units: H.
        observation_shape: S, of one observation.
        n_actions: A, the number of actions.
        layer: makes a layer for one network from ``(in_features, out_features)``.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        units: int,
        observation_shape: tuple[int, ...],
        n_actions: int,
        layer: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        inner: Any = encoder(observation_shape=observation_shape, layer=layer)
        self.encoder: nn.Module = inner
        self.n_actions, self.out_features = n_actions, units
        self.lstm = nn.LSTM(inner.out_features + n_actions + 1, units, batch_first=True)

    @property
    def state_size(self) -> int:
        """W, 2 H."""
        return 2 * self.out_features

    def unroll(
        self, observation: Tensor, action_BT: Tensor, reward_BT: Tensor, state_BW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features of T steps, and the state after them.

        Args:
            observation: ``[B, T, *S]``.
            action_BT: the action before each; -1: none.
            reward_BT: the reward before each.
            state_BW: the state before the first.

        Returns:
            ``[B, T, H]`` and ``[B, W]``.
        """
        phi_BTF = self.encoder(observation.flatten(0, 1)).view(*action_BT.shape, -1)
        one_hot_BTA = nn.functional.one_hot(action_BT + 1, self.n_actions + 1)[..., 1:]  # -1: zeros
        inputs = torch.cat([phi_BTF, one_hot_BTA.to(phi_BTF.dtype), reward_BT.unsqueeze(-1)], -1)
        output, cell = (half.unsqueeze(0).contiguous() for half in state_BW.chunk(2, -1))
        feature_BTH, after = self.lstm(inputs, (output, cell))
        return feature_BTH, torch.cat([half.squeeze(0) for half in after], -1)

    def forward(self, observation: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """The features of one step, ``[B, H]``, and the state after it, ``[B, W]``."""
        action, reward = memory.action.unsqueeze(-1), memory.reward.unsqueeze(-1)
        feature_B1H, state_BW = self.unroll(observation.unsqueeze(1), action, reward, memory.state)
        return feature_B1H.squeeze(1), state_BW
