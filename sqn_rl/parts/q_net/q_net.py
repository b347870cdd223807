"""The soft Q-network: an encoder and a head, for one network or for twins."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor, nn

from sqn_rl.errors import require, require_one_of
from sqn_rl.parts.arguments import Count, typed
from sqn_rl.parts.distributions import Distribution, Scalar
from sqn_rl.parts.observations import observation_spec_of
from sqn_rl.parts.q_net.per_network import PerNetwork, is_distributional, per_network
from sqn_rl.parts.requirements import features_of
from sqn_rl.types import dtype_name

_SCALAR = Scalar()


@runtime_checkable
class ScalingEncoder(Protocol):
    """An encoder that describes, for the screen, how it scales observations."""

    def scaling(self, dtype: torch.dtype) -> str:
        """What it does with such numbers: ``scaled as x/255``."""


class QNet(TensorDictModuleBase):
    """N soft Q-networks ``Q_1 … Q_N`` over one observation, as one TensorDict module.

    As a TensorDict module it reads ``observation`` (``[*, *S]``) and writes ``action_value`` (``[*, A]``),
    which is ``Q_1``, the network of eq. 20. :meth:`values` returns all N, of which an actor may use the mean.

    Encoder and head are each a single module for all networks if ``layer`` made all its parameters.
    Otherwise, as with plain PyTorch modules, one is made per network. In both cases the networks share no
    parameters, except those of a shared encoder.

    Args:
        encoder: makes the encoder from ``observation_shape`` and ``layer``; it must have ``out_features``.
            ``[B, *S]`` → ``[N, B, F]``, or for one network ``[B, F]``.
        head: makes the head from ``in_features``, ``n_actions`` and ``layer``: ``[N, B, F]`` → ``[N, B, A]``,
            or for one network ``[B, F]`` → ``[B, A]``. A head with a ``distribution`` outputs K numbers per
            action, ``[N, B, A, K]``.
        layer: makes a layer from ``(in_features, out_features, members=)``.
        observation_shape: S, of one observation.
        n_actions: A, the number of actions.
        members: N; 2 for the paper's twins.
        shared_encoder: whether all heads share one encoder.
        in_keys: the observation's key.
        observation_dtype: the observations' dtype: ``torch.uint8`` for bytes; any other refuses bytes only.
        precision: ``fp32``, or ``bf16``: the encoder computes in bfloat16; weights and head stay fp32.

    Raises:
        SettingError: ``members`` is not positive, ``in_keys`` not one key, or ``precision`` unknown.
        WiringError: the encoder has no ``out_features``, or a maker gives every network the same module.
        ObservationError: it is called with observations of the wrong shape or dtype.
    """

    @typed
    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        head: Callable[..., nn.Module],
        layer: Callable[..., nn.Module],
        observation_shape: Sequence[int],
        n_actions: Count,
        members: Count,
        shared_encoder: bool,
        in_keys: Sequence[str] = ("observation",),
        observation_dtype: torch.dtype = torch.float32,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        one = isinstance(in_keys, Sequence) and len(in_keys) == 1
        require(one, "in_keys", in_keys, "a list of one key, the observation's")
        require_one_of(("fp32", "bf16"), "precision", precision)
        self.precision = precision
        self.in_keys, self.out_keys = list(in_keys), ["action_value"]
        self.observation_shape, self.n_actions, self.members = tuple(observation_shape), n_actions, members
        self.observation_dtype = observation_dtype
        self._observation_spec = observation_spec_of(self)
        encoder = partial(encoder, observation_shape=self.observation_shape)
        self.encoder = per_network(encoder, layer, 1 if shared_encoder else members, features=False)
        features = features_of(_first(self.encoder), "the head")
        head = partial(head, in_features=features, n_actions=n_actions)
        self.head = per_network(head, layer, members, features=True)
        self._distributional = is_distributional(_first(self.head))

    @property
    def distribution(self) -> Distribution:
        """The meaning of :meth:`predict`'s output."""
        return _first(self.head).distribution if self._distributional else _SCALAR

    @property
    def reads(self) -> str:
        """The observations it reads, and their scaling: ``uint8 [128], scaled as (x − 128)/128``."""
        dtype, encoder = self.observation_dtype, _first(self.encoder)
        what = f"{dtype_name(dtype)} {list(self.observation_shape)}"
        return f"{what}, {encoder.scaling(dtype)}" if isinstance(encoder, ScalingEncoder) else what

    def predict(self, observation: Tensor) -> Tensor:
        """The head's output for every network: ``[B, *S]`` → ``[N, B, A]``, or ``[N, B, A, K]``."""
        return self._predict_from(self.encoder, observation)

    def first(self, observation: Tensor) -> Tensor:
        """``Q_1(s, ·)``, which is ``values(observation)[0]``. ``[B, *S]`` → ``[B, A]``, reward units.

        If there is one encoder per network, only the first is computed.
        """
        encoder = self.encoder.first if isinstance(self.encoder, PerNetwork) else self.encoder
        return self.distribution.mean(self._predict_from(encoder, observation))[0]

    def _predict_from(self, encoder: Callable[[Tensor], Tensor], observation: Tensor) -> Tensor:
        self._observation_spec.require(observation)
        if self.precision == "fp32":
            return self.head(encoder(observation))
        with torch.autocast(observation.device.type, torch.bfloat16):
            features = encoder(observation)
        return self.head(features.float())

    def values(self, observation: Tensor) -> Tensor:
        """``Q_i(s, ·)`` of every network. ``[B, *S]`` → ``[N, B, A]``, reward units."""
        return self.distribution.mean(self.predict(observation))

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``action_value`` = ``Q_1(s, ·)``, ``[*, A]``."""
        observation = tensordict.get(self.in_keys[0])
        lead = observation.shape[: observation.dim() - len(self.observation_shape)]
        q_BA = self.first(self._observation_spec.flat(observation))
        return tensordict.set(self.out_keys[0], q_BA.reshape(*lead, self.n_actions))


def _first(part: nn.Module) -> Any:
    """The part for all networks, or the one of the first."""
    return part.parts[0] if isinstance(part, PerNetwork) else part
