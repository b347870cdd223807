"""The soft Q-network: encoder, then head, for one network or for twins."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor, nn

from sqn_rl.errors import WiringError, require, require_one_of
from sqn_rl.parts.distributions import Distribution, Scalar
from sqn_rl.parts.observations import observations_of
from sqn_rl.parts.q_net.each import Each, for_all

_SCALAR = Scalar()


class QNet(TensorDictModuleBase):
    """N soft Q-networks ``Q_1 … Q_N`` over one observation, as one TensorDict module.

    As a TensorDict module it reads ``observation`` (``[*, *S]``) and writes ``action_value`` (``[*, A]``),
    which is ``Q_1``: the network that defines the policy (eq. 20). :meth:`values` gives all N.

    Encoder and head are each one module for all networks if ``layer`` made all its parameters. If not, it is
    a module for one network, as plain PyTorch gives, and one is made for each. Either way no two networks
    share a parameter, except those of a shared encoder.

    Args:
        encoder: makes the encoder from ``observation_shape`` and ``layer``; it must have ``out_features``.
            ``[B, *S]`` → ``[N, B, F]``, or for one network ``[B, F]``.
        head: makes the head from ``in_features``, ``n_actions`` and ``layer``: ``[N, B, F]`` → ``[N, B, A]``,
            or for one network ``[B, F]`` → ``[B, A]``. One with a ``distribution`` gives K numbers for each
            action, ``[N, B, A, K]``.
        layer: makes a layer from ``(in_features, out_features, members=)``.
        observation_shape: S, of one observation.
        n_actions: A, the number of actions.
        members: N; 2 for the paper's twins.
        shared_encoder: one encoder under all heads, instead of one each.
        in_keys: the observation's key.
        observation_dtype: how they are given, and no other way: bytes (``torch.uint8``), or other numbers.
        precision: ``fp32``, or ``bf16``: the encoder computes in bfloat16; weights and head stay fp32.

    Raises:
        SettingError: ``members`` is not positive, ``in_keys`` not one key, or ``precision`` unknown.
        WiringError: the encoder has no ``out_features``, or a maker gives every network the same module.
        ObservationError: it is called with observations for which it was not built.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        head: Callable[..., nn.Module],
        layer: Callable[..., nn.Module],
        observation_shape: Sequence[int],
        n_actions: int,
        members: int,
        shared_encoder: bool,
        in_keys: Sequence[str] = ("observation",),
        observation_dtype: torch.dtype = torch.float32,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        require(isinstance(members, int) and members > 0, "members", members, "a whole number of at least 1")
        one = isinstance(in_keys, Sequence) and len(in_keys) == 1
        require(one, "in_keys", in_keys, "a list of one key, the observation's")
        require_one_of(("fp32", "bf16"), "precision", precision)
        self.precision = precision
        self.in_keys, self.out_keys = list(in_keys), ["action_value"]
        self.observation_shape, self.n_actions, self.members = tuple(observation_shape), n_actions, members
        self.observation_dtype = observation_dtype
        self._observations = observations_of(self)
        encoder = partial(encoder, observation_shape=self.observation_shape)
        self.encoder = for_all(encoder, layer, 1 if shared_encoder else members, features=False)
        if not isinstance(in_features := getattr(self.encoder, "out_features", None), int):
            needs = f"{type(self._one_encoder).__name__} has no `out_features`, which the head needs to know"
            raise WiringError("encoder", f"encoder: {needs}")
        head = partial(head, in_features=in_features, n_actions=n_actions)
        self.head = for_all(head, layer, members, features=True)

    @property
    def distribution(self) -> Distribution:
        """What :meth:`predict` stands for."""
        return getattr(self.head, "distribution", _SCALAR)

    @property
    def reads(self) -> str:
        """What it reads, and how it is scaled: ``uint8 [128], scaled as (x − 128)/128``."""
        dtype, scaling = self.observation_dtype, getattr(self._one_encoder, "scaling", None)
        what = f"{str(dtype).removeprefix('torch.')} {list(self.observation_shape)}"
        return f"{what}, {scaling(dtype)}" if scaling else what

    @property
    def _one_encoder(self) -> nn.Module:
        return self.encoder.parts[0] if isinstance(self.encoder, Each) else self.encoder

    def predict(self, observation: Tensor) -> Tensor:
        """What the head says of every network: ``[B, *S]`` → ``[N, B, A]``, or ``[N, B, A, K]``."""
        return self._head_over(self.encoder, observation)

    def first(self, observation: Tensor) -> Tensor:
        """``Q_1(s, ·)``, which is ``values(observation)[0]``. ``[B, *S]`` → ``[B, A]``, reward units.

        Where every network has a module of its own as its encoder, the others' are not computed.
        """
        encoder = self.encoder.first if isinstance(self.encoder, Each) else self.encoder
        return self.distribution.mean(self._head_over(encoder, observation))[0]

    def _head_over(self, encoder: Callable[[Tensor], Tensor], observation: Tensor) -> Tensor:
        self._observations.require(observation)
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
        q_BA = self.first(self._observations.flat(observation))
        return tensordict.set(self.out_keys[0], q_BA.reshape(*lead, self.n_actions))
