"""A recurrent Q-network: an LSTM between encoder and head  (R2D2, Kapturowski et al. 2019).

Legend: N networks, P encoders (N, or 1 that is shared), Q sequences of T steps, H units, W = P · 2 H numbers
of a state; B of the steps.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sqn_rl.errors import WiringError
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.memory import Memory
from sqn_rl.parts.observations import ObservationSpec
from sqn_rl.parts.q_net.q_net import QNet, ScalingEncoder
from sqn_rl.parts.requirements import features_of
from sqn_rl.types import Sequences

LARGEST_REWARD = 1.0
"""Previous rewards are clamped to ± this, unless they are clipped: then a network reads their sign."""


class LSTM(nn.Module):
    """``h_t = LSTM(h_{t−1}; φ(s_t), a_{t−1}, r_{t−1})``, φ an encoder, a one-hot, r clamped  (section 2.3).

    torch's ``nn.LSTM``, one for each network, as it is faster than a batched one.

    Args:
        encoder: makes φ from ``observation_shape`` and ``layer``; it has ``out_features``.
        units: H.
        observation_shape: S, of one observation.
        n_actions: A, the number of actions.
        layer: makes a layer for one network from ``(in_features, out_features)``.
        clip_reward: whether r is the sign of the reward, and not the reward clamped.
        precision: ``bf16``: φ computes in bfloat16.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        units: Count,
        observation_shape: tuple[int, ...],
        n_actions: Count,
        layer: Callable[[int, int], nn.Module],
        clip_reward: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        inner: Any = encoder(observation_shape=observation_shape, layer=layer)
        features = features_of(inner, "the LSTM")
        self.encoder: nn.Module = inner
        self.n_actions, self.out_features, self._precision = n_actions, units, precision
        self._clip_reward = clip_reward
        self.lstm = nn.LSTM(features + n_actions + 1, units, batch_first=True)

    def unroll(
        self, observation: Tensor, action_QT: Tensor, reward_QT: Tensor, state_QW: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The features of T steps, and the state after them.

        Args:
            observation: ``[Q, T, *S]``.
            action_QT: the action before each; -1: none.
            reward_QT: the reward before each.
            state_QW: the state before the first, of this network alone.

        Returns:
            ``[Q, T, H]`` and ``[Q, 2 H]``.
        """
        with torch.autocast(observation.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            phi = self.encoder(observation.flatten(0, 1))
        phi_QTF = phi.view(*action_QT.shape, -1).to(state_QW.dtype)
        one_hot_QTA = nn.functional.one_hot(action_QT + 1, self.n_actions + 1)[..., 1:]  # -1: zeros
        reward_QT = (
            reward_QT.sign() if self._clip_reward else reward_QT.clamp(-LARGEST_REWARD, LARGEST_REWARD)
        )
        inputs = torch.cat([phi_QTF, one_hot_QTA.to(phi_QTF.dtype), reward_QT.unsqueeze(-1)], -1)
        output, cell = (half.unsqueeze(0).contiguous() for half in state_QW.chunk(2, -1))
        feature_QTH, after = self.lstm(inputs, (output, cell))
        return feature_QTH, torch.cat([half.squeeze(0) for half in after], -1)


class Unrolling(nn.Module):
    """The LSTMs of all networks, unrolled over sequences.

    Args:
        parts: P of :class:`LSTM`.
    """

    def __init__(self, parts: nn.ModuleList) -> None:
        super().__init__()
        self.parts = parts
        self.out_features: Any = parts[0].out_features

    def scaling(self, dtype: torch.dtype) -> str:
        """How φ scales observations, in words."""
        part: Any = self.parts[0]
        return part.encoder.scaling(dtype) if isinstance(part.encoder, ScalingEncoder) else "as they are"

    def forward(self, sequences: Sequences) -> tuple[Tensor, Tensor]:
        """The features of every step, ``[P, Q·T, H]``, and the state after the last, ``[Q, W]``.

        No gradient flows through burn-in steps; the state after them is a constant.
        """
        burn_in = int(sequences.burn_in.max())  # of all sequences that have one
        burnt_Q1 = (sequences.burn_in > 0).unsqueeze(-1)
        pieces = [slice(0, burn_in), slice(burn_in, None)] if burn_in else [slice(None)]
        features, states = [], []
        parts: Any = self.parts
        for part, state in zip(parts, sequences.state.chunk(len(parts), -1), strict=True):
            unrolled = []
            for steps in pieces:
                columns = (column[:, steps] for column in sequences[:3])
                feature, state = part.unroll(*columns, torch.where(burnt_Q1, state.detach(), state))
                unrolled.append(feature)
            features.append(torch.cat(unrolled, 1).flatten(0, 1))
            states.append(state)
        return torch.stack(features), torch.cat(states, -1)


class Recalled:
    """Sequences that a network reads; their features are computed when they are first asked for."""

    def __init__(self, encoder: Unrolling, sequences: Sequences, spec: ObservationSpec) -> None:
        self._encoder, self._sequences, self._spec = encoder, sequences, spec
        self._cache: tuple[Tensor, Tensor] | None = None

    @property
    def steps(self) -> Tensor:
        """The indices of all steps, ``[Q·T]``."""
        return torch.arange(self._sequences.action.numel(), device=self._sequences.state.device)

    @property
    def features(self) -> Tensor:
        """``[P, Q·T, H]``."""
        return self._unrolled()[0]

    @property
    def after(self) -> Tensor:
        """The state after the last step, ``[Q, W]``."""
        return self._unrolled()[1]

    def _unrolled(self) -> tuple[Tensor, Tensor]:
        if self._cache is None:
            self._spec.require(self._sequences.observation.flatten(0, 1))
            self._cache = self._encoder(self._sequences)
        return self._cache


class LSTMQNet(QNet):
    """N recurrent soft Q-networks: encoder, LSTM, head.

    Call it inside :meth:`recalling`. An observation is then the index of a step in the sequences, so actors
    and losses work unchanged.

    Args:
        units: H, of the LSTM.
        encoder: makes the encoder, as for :class:`~sqn_rl.QNet`; it encodes for one network at a time.
        head: makes the head.
        layer: makes a layer.
        observation_shape: S, of one observation.
        n_actions: A, the number of actions.
        members: N.
        shared_encoder: whether all heads share one encoder and one LSTM.
        clip_reward: whether the environment is set to clip rewards. An evaluation does not clip them, so the
            networks read the sign of the previous reward.
        in_keys: the observation's key.
        observation_dtype: the observations' dtype.
        precision: ``fp32``, or ``bf16``: the encoder, without the LSTM, computes in bfloat16.

    Raises:
        SettingError: ``units`` is not positive; and as :class:`~sqn_rl.QNet`.
        WiringError: it is called outside of :meth:`recalling`.
    """

    encoder: Unrolling

    @typed
    def __init__(
        self,
        *,
        units: Count,
        encoder: Callable[..., nn.Module],
        head: Callable[..., nn.Module],
        layer: Callable[..., nn.Module],
        observation_shape: Sequence[int],
        n_actions: Count,
        members: Count,
        shared_encoder: bool,
        clip_reward: bool = False,
        in_keys: Sequence[str] = ("observation",),
        observation_dtype: torch.dtype = torch.float32,
        precision: str = "fp32",
    ) -> None:
        recurrent = partial(
            LSTM,
            encoder=encoder,
            units=units,
            n_actions=n_actions,
            clip_reward=clip_reward,
            precision=precision,
        )
        super().__init__(
            encoder=recurrent,
            head=head,
            layer=layer,
            observation_shape=observation_shape,
            n_actions=n_actions,
            members=members,
            shared_encoder=shared_encoder,
            in_keys=in_keys,
            observation_dtype=observation_dtype,
            precision=precision,
        )
        parts: Any = self.encoder.parts
        self.encoder = Unrolling(parts)
        self.state_size = len(parts) * 2 * units
        """W, of all networks."""
        self._recalled: Recalled | None = None

    @contextmanager
    def recalling(self, sequences: Sequences) -> Iterator[Recalled]:
        """A context in which an observation is the index of a step in these sequences, ``[B]`` int64."""
        before, self._recalled = self._recalled, Recalled(self.encoder, sequences, self._observation_spec)
        try:
            yield self._recalled
        finally:
            self._recalled = before

    @contextmanager
    def remembering(self, observation: Tensor, memory: Memory) -> Iterator[Recalled]:
        """The same for a single step of each of Q episodes: ``[Q, *S]``, and their memory."""
        device = observation.device
        state, action, reward = (column.to(device) for column in memory)
        before = (action.unsqueeze(1), reward.unsqueeze(1), state, torch.zeros_like(action))
        with self.recalling(Sequences(observation.unsqueeze(1), *before)) as recalled:
            yield recalled

    def _predict_from(self, encoder: Callable[[Tensor], Tensor], observation: Tensor) -> Tensor:
        if self._recalled is None:
            hint = "act by sqn_rl.Player(actor, num_envs), or policy.player(); learn with replay=sequences"
            raise WiringError("q_net", f"q_net: {type(self).__name__} remembers the episode; {hint}")
        return self.head(self._recalled.features.index_select(1, observation))
