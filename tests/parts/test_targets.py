"""Target updates: the arithmetic of one step, and invalid settings."""

import pytest
import torch

from sqn_rl import Periodic, Polyak, SettingError, SQNLoss


def fill(loss: SQNLoss, *, online: float, target: float) -> None:
    for net, value in ((loss.q_net, online), (loss.target_q_net, target)):
        for parameter in net.parameters():
            parameter.data.fill_(value)


def targets_are(loss: SQNLoss, value: float) -> bool:
    return all(torch.equal(p, torch.full_like(p, value)) for p in loss.target_q_net.parameters())


def test_polyak_moves_by_tau_each_step(make_loss) -> None:
    loss = make_loss()
    fill(loss, online=3.0, target=1.0)
    update = Polyak(loss=loss, tau=0.25)
    assert targets_are(loss, 1.0)
    update.step()
    assert targets_are(loss, 1.5)  # .75 · 1 + .25 · 3
    update.step()
    assert targets_are(loss, 1.875)  # .75 · 1.5 + .25 · 3


def test_periodic_copies_the_networks_after_every_third_update(make_loss) -> None:
    loss = make_loss()
    fill(loss, online=3.0, target=1.0)
    update = Periodic(loss=loss, every=3)
    seen = []
    for _ in range(7):
        update.step()
        seen.append(targets_are(loss, 3.0))
        fill(loss, online=3.0, target=1.0)
    assert seen == [False, False, True, False, False, True, False]


@pytest.mark.parametrize(
    "make", [lambda loss: Polyak(loss=loss, tau=1.0), lambda loss: Periodic(loss=loss, every=1)]
)
def test_a_target_update_copies_only_the_values_of_the_networks(make_loss, make) -> None:
    loss = make_loss()
    alpha = loss.temperature.alpha.clone()
    fill(loss, online=3.0, target=1.0)
    make(loss).step()
    assert targets_are(loss, 3.0)
    fill(loss, online=5.0, target=3.0)
    assert targets_are(loss, 3.0)
    assert torch.equal(loss.temperature.alpha, alpha)
    assert not any(p.requires_grad for p in loss.target_q_net.parameters())


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.1, float("nan")])
def test_polyak_refuses_an_invalid_tau(make_loss, tau: float) -> None:
    with pytest.raises(SettingError, match="tau"):
        Polyak(loss=make_loss(), tau=tau)


@pytest.mark.parametrize("every", [0, -1, 2.5])
def test_periodic_refuses_an_invalid_period(make_loss, every: float) -> None:
    with pytest.raises(SettingError, match="every"):
        Periodic(loss=make_loss(), every=every)
