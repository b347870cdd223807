"""The Boltzmann actor: the policy of SQN, which has no network of its own."""

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from torch import Tensor
from torchrl.envs.utils import ExplorationType, exploration_type

from sqn_rl import functional as F
from sqn_rl.contracts import QNetwork, Temperature
from sqn_rl.errors import require_one_of

POLICIES: dict[str, Callable[[Tensor], Tensor]] = {
    "q1": lambda q_NBA: q_NBA[0],
    "min": lambda q_NBA: q_NBA.amin(0),
}

GREEDY = (ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN)


class BoltzmannActor(TensorDictModuleBase):
    """Acts by ``a ~ π(·|s) = softmax_a(Q(s, a) / α)``  (eq. 20), or by ``argmax_a Q(s, a)`` when greedy.

    As a TensorDict module it reads the Q-network's observation key and writes ``action`` (``[*]`` int64),
    ``log_prob`` (``[*]``, log π of that action) and ``entropy`` (``[*]``, nats). It samples unless TorchRL's
    exploration type is deterministic, mode or mean.

    Args:
        q_net: a Q-network with ``values(observation) -> [N, B, A]``.
        temperature: a module with the buffer ``alpha``, which travels with the weights.
        policy: whose softmax: ``q1`` (the paper's) or ``min`` (the minimum over the networks).
        seed: of the actor's own generator.

    Raises:
        SettingError: unknown ``policy``.
    """

    def __init__(self, *, q_net: QNetwork, temperature: Temperature, policy: str, seed: int) -> None:
        super().__init__()
        require_one_of(POLICIES, "policy", policy)
        self.in_keys, self.out_keys = list(q_net.in_keys), ["action", "log_prob", "entropy"]
        self.q_net, self.temperature, self.policy = q_net, temperature, policy
        self.generator = torch.Generator(device=self.device).manual_seed(seed)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.temperature.alpha.device

    def q_values(self, observation: Tensor) -> Tensor:
        """The action values that the policy is the softmax of. ``[B, *S]`` → ``[B, A]``."""
        return POLICIES[self.policy](self.q_net.values(observation.to(self.device)))

    @torch.no_grad()
    def act(
        self, observation: Tensor, *, greedy: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Choose an action for each observation. ``[B, *S]`` → ``[B]`` int64.

        Args:
            observation: ``[B, *S]``.
            greedy: take the best action instead of sampling.
            generator: draw from this one instead of the actor's own.
        """
        return self._choose(self.q_values(observation), greedy, generator)

    @dispatch(auto_batch_size=False)
    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write ``action``, ``log_prob`` and ``entropy``."""
        observation = tensordict.get(self.in_keys[0])
        shape = self.q_net.observation_shape
        lead = observation.shape[: observation.dim() - len(shape)]
        q_BA = self.q_values(observation.reshape(-1, *shape))
        action_B = self._choose(q_BA, exploration_type() in GREEDY, None)
        log_pi_BA = F.log_policy(q_BA, self.temperature.alpha)
        log_prob_B = log_pi_BA.gather(-1, action_B.unsqueeze(-1)).squeeze(-1)
        for key, value_B in zip(self.out_keys, (action_B, log_prob_B, F.entropy(log_pi_BA)), strict=True):
            tensordict.set(key, value_B.reshape(lead))
        return tensordict

    def _choose(self, q_BA: Tensor, greedy: bool, generator: torch.Generator | None) -> Tensor:
        if greedy:
            return q_BA.argmax(-1)
        exponential_BA = torch.empty_like(q_BA).exponential_(generator=generator or self.generator)
        return (q_BA / self.temperature.alpha - exponential_BA.log()).argmax(-1)  # Gumbel-max: ~ softmax(Q/α)
