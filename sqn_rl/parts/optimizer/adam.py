"""PyTorch's Adam, at a third of the time per step for small networks."""

from collections.abc import Callable, Sequence
from inspect import unwrap
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from sqn_rl.parts.arguments import NotNegative, Positive, Range, typed

Betas = Annotated[
    Sequence[float],
    Range(lambda betas: len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "two numbers in [0, 1)"),
]


class Adam(torch.optim.Adam):
    """``torch.optim.Adam(…, fused=True)`` (Kingma & Ba 2015), with identical results.

    At every step PyTorch looks up each parameter's moments, and prepares for hooks and its profiler, which
    for small networks takes longer than Adam itself. Here moments are looked up once, and the preparation is
    skipped unless there are hooks. State and state dict are those of :class:`torch.optim.Adam`.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        betas: decay rates of the first and second moment.
        eps: ε, added to the root of the second moment.
        weight_decay: L2 penalty.

    Raises:
        SettingError: a number is out of range.
    """

    @typed
    def __init__(
        self,
        params: Any,
        lr: Positive,
        betas: Betas = (0.9, 0.999),
        eps: NotNegative = 1e-8,
        weight_decay: NotNegative = 0.0,
    ) -> None:
        first, second = betas
        super().__init__(params, lr=lr, betas=(first, second), eps=eps, weight_decay=weight_decay, fused=True)

    # what wraps these imports torch._dynamo, which takes as long as torch, and is not needed to train
    state_dict = unwrap(Optimizer.state_dict)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    _add_param_group = unwrap(Optimizer.add_param_group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimise more parameters."""
        self._add_param_group(param_group)
        self._moments: list[Moments] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state, of a copy or from a state dict."""
        super().__setstate__(state)
        self._moments = []

    @property
    def has_hooks(self) -> bool:
        """Whether there are hooks to call at every step."""
        # PyTorch registers hooks with public functions, but has no public name for those that are registered
        global_hooks = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        return bool(global_hooks or self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step, with the parameters' ``.grad``."""
        return self._step_with_hooks(closure) if self.has_hooks else self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # PyTorch reads it, and does not wrap ``step``

    @torch.no_grad()
    def _step(self, closure: Callable[[], float] | None) -> Any:
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        without = any(gradient is None for group in gradients for gradient in group)
        if closure is not None or without:
            step: Any = torch.optim.Adam.step  # PyTorch may have wrapped it to call hooks
            self._moments = []
            return (step.__wrapped__ if hasattr(step, "hooked") else step)(self, closure)
        for group, own_gradients, moments in zip(self.param_groups, gradients, self.moments(), strict=True):
            beta1, beta2 = group["betas"]
            moments.t = None
            moments.counts.add_(1)
            torch._fused_adam_(  # what Adam(fused=True) calls, without what it does before
                group["params"],
                own_gradients,
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

    def moments(self) -> list["Moments"]:
        """The moments of every parameter group; zero before the first step."""
        if not self._moments:
            self._moments = [Moments(group, self.state) for group in self.param_groups]
        return self._moments


class Moments:
    """The moments of a parameter group, and a step in operations that ``torch.compile`` can fuse.

    PyTorch's own step is one operation for all parameters, which cannot be fused with any other. When
    compiled, these operations become one loop over each parameter, fused with other operations on it.

    Args:
        group: a parameter group of the optimizer.
        state: the optimizer's state, which may have moments already; step counts become views of one tensor.
    """

    def __init__(self, group: dict[str, Any], state: dict[Tensor, Any]) -> None:
        self._group = group
        states = [state[parameter] or _initial_state(parameter) for parameter in group["params"]]
        self.counts = torch.stack([each["step"] for each in states])
        """Step count of each of P parameters, ``[P]``."""
        self.steps = list(self.counts)
        self.first: list[Tensor] = [each["exp_avg"] for each in states]
        self.second: list[Tensor] = [each["exp_avg_sq"] for each in states]
        self.t: int | None = None
        """The common step count, if it is known without reading tensors."""
        self._rates = torch.zeros(2)
        self._as_numbers = self._rates.numpy()
        for parameter, own, count in zip(group["params"], states, self.steps, strict=True):
            state[parameter] = own | {"step": count}
        self.same_counts = len(set(self.counts.tolist())) == 1
        """Whether all parameters have the same step count, as :meth:`move` requires."""

    def begin_step(self) -> Tensor:
        """Count a step, and return the factors that change with it: lr / (1 − β₁^t) and 1/√(1 − β₂^t)."""
        (beta1, beta2), lr = self._group["betas"], self._group["lr"]
        self.t = t = (int(self.counts[0]) if self.t is None else self.t) + 1
        self._as_numbers[0] = lr / (1 - beta1**t)
        self._as_numbers[1] = (1 - beta2**t) ** -0.5
        return self._rates

    def move(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """Take one step, without autograd.

        Args:
            gradients: the gradient of each parameter. Parameters without one must be skipped, their counts
                too; for that use :meth:`Adam.step`.
            rates: what :meth:`begin_step` returned.
        """
        (beta1, beta2), eps, decay = (self._group[name] for name in ("betas", "eps", "weight_decay"))
        self.counts.add_(1)
        for parameter, gradient, first, second in zip(
            self._group["params"], gradients, self.first, self.second, strict=True
        ):
            gradient = gradient + decay * parameter if decay else gradient
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            parameter.sub_(rates[0] * first / (second.sqrt() * rates[1] + eps))


def _initial_state(parameter: Tensor) -> dict[str, Tensor]:
    """The state before the first step, in PyTorch's format."""
    count = torch.zeros((), device=parameter.device)
    first, second = (torch.zeros_like(parameter, requires_grad=False) for _ in range(2))
    return {"step": count, "exp_avg": first, "exp_avg_sq": second}
