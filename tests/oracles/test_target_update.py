"""The target networks' step (line 18), worked by hand."""

from torch import nn

from sqn_rl.parts.target_update.periodic import Periodic
from sqn_rl.parts.target_update.polyak import Polyak


def fill(net: nn.Module, value: float) -> None:
    for parameter in net.parameters():
        nn.init.constant_(parameter, value)


def values_of(net: nn.Module) -> set[float]:
    return {x for parameter in net.parameters() for x in parameter.flatten().tolist()}


def make_networks(target: float, online: float) -> nn.Module:
    """What an updater needs of a loss: an online network and its target, constant here."""
    loss = nn.Module()
    loss.target_q_net, loss.q_net = nn.Linear(2, 3).requires_grad_(False), nn.Linear(2, 3)
    fill(loss.target_q_net, target)
    fill(loss.q_net, online)
    return loss


def test_polyak_moves_the_target_a_fraction_tau_of_the_way() -> None:
    loss = make_networks(target=4, online=8)
    updater = Polyak(loss=loss, tau=0.25)
    assert values_of(loss.target_q_net) == {4}  # nothing is copied when it is made
    updater.step()
    assert values_of(loss.target_q_net) == {5}  # 3/4 · 4 + 1/4 · 8
    updater.step()
    assert values_of(loss.target_q_net) == {5.75}  # 3/4 · 5 + 1/4 · 8
    assert values_of(loss.q_net) == {8}


def test_periodic_copies_after_every_third_update() -> None:
    loss = make_networks(target=4, online=9)
    updater = Periodic(loss=loss, every=3)
    seen = []
    for update in range(7):
        fill(loss.q_net, 10 + update)
        updater.step()
        seen.append(values_of(loss.target_q_net))
    assert seen == [{4}, {4}, {12}, {12}, {12}, {15}, {15}]
    assert values_of(loss.q_net) == {16}
