"""Refuse parts of an agent that do not fit each other."""

from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from typing import Any

from torch import nn

from sqn_rl.errors import WiringError
from sqn_rl.parts.distributions import Distribution
from sqn_rl.parts.memory import state_size
from sqn_rl.protocols import (
    Actor,
    Discounted,
    EntropyBackup,
    HasReturns,
    Loss,
    OffPolicy,
    PathLoss,
    PathReturns,
    QNetwork,
    Replay,
    SamplingLoss,
    SequenceGiving,
    SequenceLoss,
    SoftReturns,
    TargetUpdate,
    Temperature,
    submodule,
)
from sqn_rl.types import Batch

PROTOCOLS = {
    "q_net": QNetwork,
    "temperature": Temperature,
    "actor": Actor,
    "loss": Loss,
    "target_update": TargetUpdate,
    "replay": Replay,
}
"""What the part of a slot has to have."""

OWN_PARTS = "see docs/walkthroughs/own_parts.md"


def require_members(parts: Mapping[str, Any]) -> None:
    """Refuse a part that lacks a member of its slot's protocol, or an actor whose ``act`` lacks an option.

    Raises:
        WiringError: one does; the error names it.
    """
    for slot, protocol in PROTOCOLS.items():
        if (part := parts[slot]) is None:  # no temperature
            continue
        members = [*vars(protocol), *protocol.__annotations__]
        for name in members:
            if name.startswith("_"):
                continue
            if not hasattr(part, name):
                raise WiringError(slot, f"{slot}: {type(part).__name__} has no `{name}`; {OWN_PARTS}")
            if callable(vars(protocol).get(name)) and not callable(getattr(part, name)):
                problem = f"`{name}` of {type(part).__name__} is no method"
                raise WiringError(slot, f"{slot}: {problem}; {OWN_PARTS}")
    actor, options = parts["actor"], signature(parts["actor"].act).parameters.values()
    if not any(option.kind is option.VAR_KEYWORD for option in options):
        for name in sorted({"greedy", "generator"} - {option.name for option in options}):
            raise WiringError("actor", f"actor: {type(actor).__name__}.act takes no `{name}`; {OWN_PARTS}")


def require_batch(batch: object, replay: str) -> None:
    """Refuse what a replay draws if it is no batch.

    Raises:
        WiringError: it is none.
    """
    if not isinstance(batch, Batch):
        given = f"{replay}.draw gives a {type(batch).__name__}"
        raise WiringError("replay", f"replay: {given}; expected a sqn_rl.Batch; {OWN_PARTS}")


def require_shared(actor: Actor, loss: Loss, target_update: TargetUpdate) -> None:
    """Refuse an actor or a target update that is made for other networks, or another α, than the loss.

    Such an actor would never act by what is learned, and such targets would never follow it. Frozen networks
    are accepted, such as those of a teacher. A policy network is trained by the losses that know it.

    Raises:
        WiringError: the parts do not share them.
    """
    alpha = submodule(actor, "temperature")
    if alpha is not None and loss.temperature is not None and alpha is not loss.temperature:
        raise WiringError("actor", "actor: its temperature is not the loss's; give both the same", "loss")
    alphas = {id(each) for each in _parameters([loss.temperature, alpha])}
    learned = {id(each) for each in [*loss.parameters(), *_parameters([loss.q_net])]} - alphas
    for slot, part in (("actor", submodule(actor, "q_net")), ("target_update", target_update)):
        held = {id(each) for each in _parameters([part]) if each.requires_grad} - alphas
        if held and not held & learned:
            problem = "none of its networks is the loss's, so that it would not change with what is learned"
            message = f"{slot}: {problem}; give it the same, or freeze its own by requires_grad_(False)"
            raise WiringError(slot, message, "loss")


def require_agreement(loss: Loss, replay: Replay) -> None:
    """Refuse parts that disagree about γ, paths, log μ or entropy bonuses.

    Raises:
        WiringError: two of the parts disagree.
    """
    returns = replay.returns if isinstance(replay, HasReturns) else None
    _require_same_gamma(loss, returns)
    _require_paths_are_read(loss, returns)
    _require_importance_weights(loss, returns)
    _require_last_entropy(loss, returns)


def _require_same_gamma(loss: Loss, returns: object) -> None:
    if isinstance(loss, Discounted) and isinstance(returns, Discounted) and loss.gamma != returns.gamma:
        message = f"loss: gamma = {loss.gamma}: expected {returns.gamma}, as the returns have"
        raise WiringError("loss", message, "returns")


def _require_paths_are_read(loss: Loss, returns: object) -> None:
    reads_paths = isinstance(loss, PathLoss) and loss.reads_paths
    if isinstance(returns, PathReturns) and returns.gives_paths and not reads_paths:
        problem = f"{type(returns).__name__} gives paths, which {type(loss).__name__} does not read"
        raise WiringError("returns", f"returns: {problem}; choose returns=one_step or n_step", "loss")


def _require_importance_weights(loss: Loss, returns: object) -> None:
    """Refuse returns that weigh actions by π/μ where there are only distributions, or no π."""
    if not (isinstance(returns, OffPolicy) and returns.reads_log_mu):
        return
    name, distribution = type(returns).__name__, loss.q_net.distribution
    if not (isinstance(distribution, Distribution) and distribution.is_mean):
        problem = f"{name} subtracts values, which a distribution of returns does not allow"
        raise WiringError("returns", f"returns: {problem}; choose returns=tree_backup or head=linear", "head")
    if isinstance(loss, SamplingLoss) and loss.samples_action:
        problem = f"{name} needs π(a|s), in whose place loss.backup = sampled has one action"
        hint = "choose returns=tree_backup or loss.backup=expected"
        raise WiringError("returns", f"returns: {problem}; {hint}", "loss.backup")


def _require_last_entropy(loss: Loss, returns: object) -> None:
    """Refuse soft returns, which count the entropies of a path, with a loss that omits the last one."""
    leaves_out = isinstance(loss, EntropyBackup) and not loss.backup_entropy
    if isinstance(returns, SoftReturns) and returns.soft and leaves_out:
        needs = "expected a loss that counts the entropy of the last step too; set it to false"
        message = f"returns.soft = true: {needs}: {type(loss).__name__} leaves that entropy out"
        producer = "loss.backup_entropy" if "backup_entropy" in vars(loss) else "loss"  # a setting, or none
        raise WiringError("returns.soft", message, producer)


def require_memory(actor: Actor, loss: Loss, replay: Replay) -> None:
    """Refuse a recurrent Q-network with parts that are not made for one.

    Raises:
        WiringError: the actor, the loss or the replay is not made for a recurrent Q-network.
    """
    if not state_size(loss.q_net):
        return
    remembers = f"{type(loss.q_net).__name__} remembers the episode, and"
    if not state_size(actor):
        hint = "choose actor=boltzmann, epsilon_greedy or greedy, or q_net=twin"
        raise WiringError("actor", f"actor: {remembers} {type(actor).__name__} does not; {hint}", "q_net")
    if not (isinstance(loss, SequenceLoss) and loss.reads_sequences):
        problem = f"{type(loss).__name__} does not read sequences"
        raise WiringError("loss", f"loss: {remembers} {problem}; choose q_net=twin", "q_net")
    if not (isinstance(replay, SequenceGiving) and replay.gives_sequences):
        problem = f"{type(replay).__name__} gives single steps"
        raise WiringError("q_net", f"q_net: {remembers} {problem}; choose replay=sequences", "replay")


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
