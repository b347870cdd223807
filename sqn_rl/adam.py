"""Adam, as PyTorch has it, at a third of the cost of a step of small networks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(…, fused=True)`` (Kingma & Ba 2015), number for number.

    At every step PyTorch looks up each parameter's moments, and makes ready for hooks and its profiler, which
    for small networks takes longer than Adam. Here moments are looked up once, and the rest is done where
    there are hooks. State and state dict are those of :class:`torch.optim.Adam`.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        betas: how much of the old moments is kept.
        eps: ε, added to the root of the second moment.
        weight_decay: L2 penalty.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        first, second = betas  # of a recipe a list
        super().__init__(params, lr=lr, betas=(first, second), eps=eps, weight_decay=weight_decay, fused=True)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimise more parameters."""
        super().add_param_group(param_group)
        self._moments: list[_Moments] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state_dict)
        self._moments = []

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, from the parameters' gradients."""
        everybodys = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        hooked = everybodys or self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
        return self._step_with_hooks(closure) if hooked else self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # to PyTorch, which then leaves it as it is

    @torch.no_grad()
    def _step(self, closure: Callable[[], float] | None) -> Any:
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        without = any(gradient is None for group in gradients for gradient in group)
        if closure is not None or without or not self._moments:
            step: Any = torch.optim.Adam.step  # which may have been made to call hooks, as of any optimizer
            value = (step.__wrapped__ if hasattr(step, "hooked") else step)(self, closure)
            self._moments = [] if without else [self._moments_of(group) for group in self.param_groups]
            return value
        for group, found, moments in zip(self.param_groups, gradients, self._moments, strict=True):
            beta1, beta2 = group["betas"]
            moments.counts.add_(1)
            torch._fused_adam_(
                group["params"],
                found,
                moments.first,
                moments.second,
                [],
                moments.steps,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                amsgrad=False,
                maximize=False,
            )
        return None

    _step_with_hooks = Optimizer.profile_hook_step(_step)

    def _moments_of(self, group: dict[str, Any]) -> "_Moments":
        """The moments of a group's parameters; their counts are made to lie side by side."""
        states = [self.state[parameter] for parameter in group["params"]]
        counts = torch.stack([state["step"] for state in states])
        for state, count in zip(states, counts, strict=True):
            state["step"] = count
        first, second, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        return _Moments(first, second, steps, counts)


class _Moments(NamedTuple):
    """Of the parameters of a group."""

    first: list[Tensor]
    second: list[Tensor]
    steps: list[Tensor]
    """How many there were, each a part of ``counts``."""
    counts: Tensor
