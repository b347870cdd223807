"""Checks that the parts of an agent share their networks and their temperature."""

from collections.abc import Iterable, Iterator

from torch import nn

from sqn_rl.errors import WiringError
from sqn_rl.protocols import Actor, Loss, TargetUpdate, submodule


def require_shared(actor: Actor, loss: Loss, target_update: TargetUpdate) -> None:
    """Refuse an actor or a target update that is made for other networks, or another α, than the loss.

    Such an actor would never act by what is learned, and such targets would never follow it. Frozen networks
    are accepted, such as those of a teacher.

    Raises:
        WiringError: the parts do not share them.
    """
    alpha = submodule(actor, "temperature")
    if alpha is not None and loss.temperature is not None and alpha is not loss.temperature:
        raise WiringError("actor", "actor: its temperature is not the loss's; give both the same", "loss")
    alphas = {id(each) for each in _parameters([loss.temperature, alpha])}
    learned = {id(each) for each in [*loss.parameters(), *_parameters([loss.q_net])]} - alphas
    for slot, part in (("actor", actor), ("target_update", target_update)):
        held = {id(each) for each in _parameters([part]) if each.requires_grad} - alphas
        if held and not held & learned:
            problem = "none of its networks is the loss's, so that it would not change with what is learned"
            message = f"{slot}: {problem}; give it the same, or freeze its own by requires_grad_(False)"
            raise WiringError(slot, message, "loss")


def _parameters(parts: Iterable[object]) -> Iterator[nn.Parameter]:
    """The parameters of modules, and those in the attributes of other parts, and in lists there."""
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
            continue
        for value in getattr(part, "__dict__", {}).values():
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, nn.Parameter):
                    yield each
                elif isinstance(each, nn.Module):
                    yield from each.parameters()
