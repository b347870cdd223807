"""Adam, as PyTorch has it, at a third of the cost of a step of small networks."""

from collections.abc import Callable, Sequence
from typing import Any

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
        self._moments: list[Moments] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Go on from there: as a copy, or from a state dict."""
        super().__setstate__(state)
        self._moments = []

    @property
    def hooked(self) -> bool:
        """Whether somebody is to be told of every step."""
        everybodys = _global_optimizer_pre_hooks or _global_optimizer_post_hooks
        return bool(everybodys or self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """One step, from the parameters' gradients."""
        return self._step_with_hooks(closure) if self.hooked else self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # to PyTorch, which then leaves it as it is

    @torch.no_grad()
    def _step(self, closure: Callable[[], float] | None) -> Any:
        gradients = [[parameter.grad for parameter in group["params"]] for group in self.param_groups]
        without = any(gradient is None for group in gradients for gradient in group)
        if closure is not None or without:
            step: Any = torch.optim.Adam.step  # which may have been made to call hooks, as of any optimizer
            self._moments = []
            return (step.__wrapped__ if hasattr(step, "hooked") else step)(self, closure)
        for group, found, moments in zip(self.param_groups, gradients, self.moments(), strict=True):
            beta1, beta2 = group["betas"]
            moments.t = None
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

    def moments(self) -> list["Moments"]:
        """Of every group of parameters; zero before the first step."""
        if not self._moments:
            self._moments = [Moments(group, self.state) for group in self.param_groups]
        return self._moments


class Moments:
    """The moments of a group's parameters, and a step in operations that ``torch.compile`` can have.

    PyTorch's own step is one operation for all parameters, which cannot be joined with any other. Compiled,
    these are one loop over the numbers of each parameter, with whatever else is done with it.

    Args:
        group: of the optimizer.
        state: of the optimizer, where moments may be already; the counts are made to lie side by side.
    """

    def __init__(self, group: dict[str, Any], state: dict[Tensor, Any]) -> None:
        self._group = group
        states = [state[parameter] or _at_first(parameter) for parameter in group["params"]]
        self.counts = torch.stack([each["step"] for each in states])
        """How many steps there were, ``[P]`` of P parameters."""
        self.steps = list(self.counts)
        self.first: list[Tensor] = [each["exp_avg"] for each in states]
        self.second: list[Tensor] = [each["exp_avg_sq"] for each in states]
        self.t: int | None = None
        """The last step, where it is known without asking the tensors."""
        self._rates = torch.zeros(2)
        self._as_numbers = self._rates.numpy()
        for parameter, own, count in zip(group["params"], states, self.steps, strict=True):
            state[parameter] = own | {"step": count}
        self.movable = len(set(self.counts.tolist())) == 1
        """Whether :meth:`move` fits: all parameters have had as many steps."""

    def rates(self) -> Tensor:
        """What differs from step to step: how long this one is, and 1/√(1 − β₂^t), ``[2]``."""
        (beta1, beta2), lr = self._group["betas"], self._group["lr"]
        self.t = t = (int(self.counts[0]) if self.t is None else self.t) + 1
        self._as_numbers[0] = lr / (1 - beta1**t)
        self._as_numbers[1] = (1 - beta2**t) ** -0.5
        return self._rates

    def move(self, gradients: Sequence[Tensor], rates: Tensor) -> None:
        """One step, without autograd.

        Args:
            gradients: of each parameter. One that has none takes no step and counts none, which only
                :meth:`Adam.step` knows.
            rates: of this step.
        """
        (beta1, beta2), eps, decay = (self._group[name] for name in ("betas", "eps", "weight_decay"))
        self.counts.add_(1)
        for parameter, found, first, second in zip(
            self._group["params"], gradients, self.first, self.second, strict=True
        ):
            gradient = found + decay * parameter if decay else found
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            parameter.sub_(rates[0] * first / (second.sqrt() * rates[1] + eps))


def _at_first(parameter: Tensor) -> dict[str, Tensor]:
    """The state before the first step, as PyTorch has it."""
    count = torch.zeros((), device=parameter.device)
    first, second = (torch.zeros_like(parameter, requires_grad=False) for _ in range(2))
    return {"step": count, "exp_avg": first, "exp_avg_sq": second}
