"""The tree backup and Retrace, against a brute force over a plain Python list of all steps.

The oracle has Q̄ and π of each state as numbers, and computes G by recursion over the steps.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from rings import make_ring
from torch import Tensor, nn

from sqn_rl import NStep, OneStep, Retrace, SettingError, SQNLoss, Step, TreeBackup, WiringError
from sqn_rl.parts.distributions import Categorical, Distribution, Quantile, Scalar
from sqn_rl.parts.loss.td import TDLoss
from sqn_rl.parts.replay.ring import Ring
from sqn_rl.parts.temperature.fixed import FixedTemperature

ALPHA, GAMMA, ACTIONS, TWINS, K = 0.75, 0.5, 5, 2, 7
BACKUPS = ["expected", "expected_min", "expected_mean", "own", "max"]
LOSSES = ["dqn", "double_dqn", "sqn", "munchausen"]
HEADS = ["scalar", "categorical", "quantile"]

assert_close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)


class WaveQ(nn.Module):
    """A Q-network that is a formula: no two observations have the same values, all between −1 and 1."""

    in_keys = ("observation",)
    observation_shape = (2,)

    def __init__(self, seed: int, distribution: Distribution | None = None, networks: int = TWINS) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.distribution = distribution or Scalar()
        shape = (networks, 1, ACTIONS) + (() if distribution is None else (K,))
        self.phase = nn.Parameter(6 * torch.rand(shape, generator=generator))

    def predict(self, observation: Tensor) -> Tensor:
        frame = observation if observation.dim() == 2 else observation[:, -1]
        s = frame[:, 0].double().reshape(1, -1, *[1] * (self.phase.dim() - 2))
        return torch.sin(1.7 * s + self.phase)

    def values(self, observation: Tensor) -> Tensor:
        return self.distribution.mean(self.predict(observation))

    def first(self, observation: Tensor) -> Tensor:
        return self.values(observation)[0]


def distribution_of(head: str) -> Distribution | None:
    if head == "categorical":  # its range holds every return here, so that a projection keeps the mean
        return Categorical(v_min=-20, v_max=20, atoms=K)
    return Quantile(quantiles=K, kappa=1.0) if head == "quantile" else None


@pytest.fixture
def make(make_loss) -> Callable[..., TDLoss]:
    def with_waves(name: str = "sqn", head: str = "scalar", **settings: Any) -> TDLoss:
        q_net = WaveQ(0, distribution_of(head))
        temperature = FixedTemperature(alpha=ALPHA)
        loss = make_loss(name, torch.zeros(1, 1, 1), q_net=q_net, temperature=temperature, **settings)
        loss.target_q_net.load_state_dict(WaveQ(1, distribution_of(head)).state_dict())
        return loss

    return with_waves


class Happened(NamedTuple):
    """One step of one environment."""

    action: int
    reward: float
    next_observation: Tensor
    terminated: bool
    is_last: bool
    mu: float


class Record:
    """The steps of N environments, a list each; a cut makes the step before it a last one."""

    def __init__(self, num_envs: int) -> None:
        self.steps: list[list[Happened]] = [[] for _ in range(num_envs)]

    def append(self, _: Tensor, action: Tensor, step: Any) -> None:
        is_last = step.terminated | step.truncated | step.ended
        columns = (action.tolist(), step.reward.tolist(), step.next_observation, step.terminated.tolist())
        mu = torch.ones(len(action)) if step.log_mu is None else step.log_mu.double().exp()
        for steps, *row in zip(self.steps, *columns, is_last.tolist(), mu.tolist(), strict=True):
            steps.append(Happened(*row))

    def cut(self, which: list[int]) -> None:
        for i in which:
            self.steps[i][-1] = self.steps[i][-1]._replace(is_last=True)

    def targets(self, rows: int, target: Callable[[list[Happened]], float]) -> list[float]:
        """``target`` of each of the newest rows and the steps after it, oldest first."""
        return [target(steps[len(steps) + row :]) for row in range(-rows, 0) for steps in self.steps]


def state_of(loss: TDLoss, observation: Tensor) -> tuple[list[list[float]], list[float], float]:
    """Q̄_i(s, ·), π(·|s) = softmax(Q_1(s, ·)/α) and H(π) of one state, as numbers."""
    target_q = loss.target_q_net.values(observation[None])[:, 0].tolist()
    e = [math.exp(q / ALPHA) for q in loss.q_net.values(observation[None])[0, 0].tolist()]
    pi = [each / sum(e) for each in e]
    return target_q, pi, -sum(p * math.log(p) for p in pi)


def weights_of(backup: str, target_q: list[list[float]], pi: list[float], twin: int) -> list[list[float]]:
    """w_i(a), ``[twin][action]``: how much of v(s) comes from each network's value of each action."""
    expected = [sum(p * q for p, q in zip(pi, each, strict=True)) for each in target_q]
    lower = expected.index(min(expected))
    none = [0.0] * ACTIONS
    if backup == "expected":
        return [pi if i == lower else none for i in range(TWINS)]
    if backup == "expected_min":
        return [
            [p if q[i] == min(q) else 0.0 for p, *q in zip(pi, *target_q, strict=True)] for i in range(TWINS)
        ]
    if backup == "expected_mean":
        return [[p / TWINS for p in pi]] * TWINS
    if backup == "own":
        return [pi if i == twin else none for i in range(TWINS)]
    best = [max(each) for each in target_q]
    lower = best.index(min(best))
    return [[float(i == lower and q == best[i]) for q in target_q[i]] for i in range(TWINS)]


def tree_backup(
    loss: TDLoss,
    future: list[Happened],
    n: int,
    lmbda: float,
    backup: str,
    twin: int,
    *,
    corrects: bool = False,
) -> float:
    """G_k = r_k + γ [v(s_{k+1}) + λ (w(a) G_{k+1} − Σ_i w_i(a) Q̄_i(a))], by recursion.

    Retrace ``corrects``: with π(a) = w(a) the last is c (G_{k+1} − Q̄(a)), c = λ min(1, π(a)/μ(a)).
    """
    step = future[0]
    if step.terminated:
        return step.reward
    target_q, pi, entropy = state_of(loss, step.next_observation)
    w = weights_of(backup, target_q, pi, twin)
    value = sum(w[i][a] * target_q[i][a] for i in range(TWINS) for a in range(ACTIONS)) + ALPHA * entropy
    if n > 1 and not step.is_last and len(future) > 1:
        a = future[1].action
        following = tree_backup(loss, future[1:], n - 1, lmbda, backup, twin, corrects=corrects)
        chance, share = (
            sum(w[i][a] for i in range(TWINS)),
            sum(w[i][a] * target_q[i][a] for i in range(TWINS)),
        )
        if not corrects:
            value += lmbda * (chance * following - share)
        elif chance > 0:
            value += lmbda * min(1.0, chance / future[1].mu) * (following - share / chance)
    return step.reward + GAMMA * value


# --- worked by hand ----------------------------------------------------------------------------------------


def test_two_steps_worked_by_hand(make_loss) -> None:
    # γ = ½, α = 2: π(·|1) = [1/4, 3/4], Q̄(1, ·) = [8, 4]; from state 0 by any action, from 1 by action 1
    ring = make_ring(4, 1)
    for t, action in enumerate([0, 1]):
        now, following = torch.full((1, 2), float(t)), torch.full((1, 2), t + 1.0)
        no = torch.tensor([False])
        reward = torch.tensor([4.0 + 4 * t])
        ring.append(now, torch.tensor([action]), Step(following, following, reward, no, no, no, reward))

    class Table(WaveQ):
        def predict(self, observation: Tensor) -> Tensor:
            return self.phase[0, :, observation[:, 0].long()]

    q_net = Table(0, networks=1)
    q_net.phase = nn.Parameter(torch.tensor([[[[0, 0], [0, 2 * math.log(3)], [0, 0]]]]))
    loss = make_loss("sqn", torch.zeros(1, 1, 1), q_net=q_net, temperature=FixedTemperature(alpha=2.0))
    loss.target_q_net.phase = nn.Parameter(torch.tensor([[[[0.0, 0], [8, 4], [6, 6]]]]))
    batch = TreeBackup(gamma=0.5, n=2, lmbda=1.0).gather(ring, torch.tensor([0, 1]))
    # G_1 = 8 + ½ (6 + 2 ln 2);  H(π(·|1)) = ¼ ln 4 + ¾ ln (4/3);
    # G_0 = 4 + ½ (¼ · 8 + ¾ · 4 + 2 H + ¾ (G_1 − 4))
    last = 8 + 0.5 * (6 + 2 * math.log(2))
    entropy = math.log(4) / 4 + 3 * math.log(4 / 3) / 4
    first = 4 + 0.5 * (2 + 3 + 2 * entropy + 0.75 * (last - 4))
    assert_close(loss.target(batch, q_net.values(batch.observation)), torch.tensor([first, last]))


# --- against brute force -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("num_envs", "capacity", "stack"), [(1, 12, 3), (3, 31, 1)])
@pytest.mark.parametrize("backup", BACKUPS)
@pytest.mark.parametrize(
    ("kind", "n", "lmbda"),
    [
        (TreeBackup, 1, 1.0),
        (TreeBackup, 3, 1.0),
        (TreeBackup, 7, 0.75),
        (Retrace, 3, 1.0),
        (Retrace, 7, 0.75),
    ],
)
def test_targets_equal_the_recursion_over_the_recorded_steps(
    make,
    make_games,
    kind: type[TreeBackup],
    n: int,
    lmbda: float,
    backup: str,
    num_envs: int,
    capacity: int,
    stack: int,
    ending: float,
) -> None:
    ring, record = make_ring(capacity, num_envs, stack), Record(num_envs)
    loss, games = make(backup=backup), make_games(num_envs, ending, stack=stack)
    returns, generator = kind(gamma=GAMMA, n=n, lmbda=lmbda), torch.Generator().manual_seed(0)
    for row in range(1, 21):
        *acted, step = games.play()
        if kind is Retrace:  # any probabilities: of some actions less than π, of some more
            step = step._replace(log_mu=torch.rand(num_envs, generator=generator).log().float())
        ring.append(*acted, step)
        record.append(*acted, step)
        if row % 6 == 0:
            which = torch.arange(num_envs)[row // 6 % 3 :]  # all of them, or some
            games.restart(which)
            ring.cut(which)
            record.cut(which.tolist())
        if row in (1, 8, 20):
            batch = returns.gather(ring, ring.place(torch.arange(len(ring))))
            y = loss.target(batch, loss.q_net.values(batch.observation))
            for twin in range(TWINS):
                how = {"n": n, "lmbda": lmbda, "backup": backup, "twin": twin, "corrects": kind is Retrace}
                of = partial(tree_backup, loss, **how)
                wanted = record.targets(min(row, capacity // num_envs), of)
                assert_close(y[twin] if backup == "own" else y, torch.tensor(wanted))


@pytest.mark.parametrize("backup", BACKUPS)
def test_retrace_with_behaviour_probability_one_equals_the_tree_backup(make, make_games, backup: str) -> None:
    ring, games, loss = make_ring(60, 3), make_games(3, 0.1), make(backup=backup)
    for _ in range(30):
        *acted, step = games.play()
        ring.append(*acted, step._replace(log_mu=torch.zeros(3)))
    place, settings = ring.place(torch.arange(len(ring))), {"gamma": GAMMA, "n": 4, "lmbda": 0.9}
    batches = [kind(**settings).gather(ring, place) for kind in (Retrace, TreeBackup)]
    q_NBA = loss.q_net.values(batches[0].observation)
    assert_close(*(loss.target(batch, q_NBA) for batch in batches))


def test_retrace_without_behaviour_probabilities_is_refused(make_games) -> None:
    ring, place = played_ring(make_games)
    with pytest.raises(WiringError, match="no step has them"):
        Retrace(gamma=GAMMA, n=3, lmbda=1.0).gather(ring, place)


def played_ring(make_games, ending: float = 0.1) -> tuple[Ring, Tensor]:
    ring, games = make_ring(60, 3), make_games(3, ending)
    for _ in range(30):
        ring.append(*games.play())
    return ring, ring.place(torch.arange(len(ring)))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "returns", [TreeBackup(gamma=0.5, n=1, lmbda=1.0), TreeBackup(gamma=0.5, n=5, lmbda=0.0)]
)
def test_with_n_1_or_lambda_0_the_target_is_the_one_step_target(
    make, make_games, returns: TreeBackup, name: str, head: str
) -> None:
    (ring, place), loss = played_ring(make_games), make(name, head)
    ys = []
    for each in (returns, OneStep(gamma=0.5)):
        batch = each.gather(ring, place)
        ys.append(loss.target(batch, loss.q_net.values(batch.observation)))
    assert_close(*ys)


@pytest.mark.parametrize("backup", BACKUPS)
@pytest.mark.parametrize("head", HEADS[1:])
def test_the_mean_of_a_distributional_target_is_the_tree_backup_of_the_means(
    make, make_games, head: str, backup: str
) -> None:
    (ring, place), loss = played_ring(make_games), make(head=head, backup=backup)
    batch = TreeBackup(gamma=GAMMA, n=4, lmbda=1.0).gather(ring, place)
    q_NBA = loss.q_net.values(batch.observation)
    target = loss.target(batch, q_NBA)
    mean = target @ loss.q_net.distribution.support if head == "categorical" else target.mean(-1)

    class Means(WaveQ):
        """Scalar values that are the means of the distributional network's."""

        def __init__(self, q_net: Any) -> None:
            nn.Module.__init__(self)
            self.inner, self.distribution = q_net, Scalar()

        def predict(self, observation: Tensor) -> Tensor:
            return self.inner.values(observation)

    scalar = make(backup=backup)
    scalar.q_net, scalar.target_q_net = Means(loss.q_net), Means(loss.target_q_net)
    assert_close(mean, scalar.target(batch, q_NBA))


def test_a_categorical_target_equals_the_enumerated_distribution_of_returns(make_loss) -> None:
    """With γ = 1 and whole rewards every return is an atom: the target is exact, atom by atom."""
    support = range(-6, 7)
    distribution = Categorical(v_min=-6, v_max=6, atoms=13)
    q_net = WaveQ(0, distribution, networks=1)
    q_net.phase = nn.Parameter(torch.zeros(1, 1, ACTIONS, 13))
    loss = make_loss(
        "sqn",
        torch.zeros(1, 1, 1),
        q_net=q_net,
        temperature=FixedTemperature(alpha=1.0),
        gamma=1.0,
        backup_entropy=False,
    )

    class Sure(WaveQ):
        """In every state, action a is worth a − 2 or a, half each."""

        def predict(self, observation: Tensor) -> Tensor:
            logit_AK = torch.full((ACTIONS, 13), -200.0)
            for a in range(ACTIONS):
                logit_AK[a, a - 2 + 6] = logit_AK[a, a + 6] = 0.0
            return logit_AK.expand(1, len(observation), ACTIONS, 13)

    loss.target_q_net = Sure(0, distribution, networks=1)
    ring, no = make_ring(5, 1), torch.tensor([False])
    rewards, actions = [1.0, -1.0, 2.0], [0, 3, 1]
    for t, (r, a) in enumerate(zip(rewards, actions, strict=True)):
        now, following, reward = torch.full((1, 2), float(t)), torch.full((1, 2), t + 1.0), torch.tensor([r])
        ring.append(now, torch.tensor([a]), Step(following, following, reward, no, no, no, reward))
    batch = TreeBackup(gamma=1.0, n=3, lmbda=1.0).gather(ring, torch.tensor([0]))
    (target_K,) = loss.target(batch, loss.q_net.values(batch.observation))
    pi = loss.log_policy(batch.observation, loss.q_net.values(batch.observation))[0].exp().tolist()
    assert len({round(p, 6) for p in pi}) == 1  # uniform: 1/5, in every state

    def after(t: int) -> dict[int, float]:
        """The distribution of the return from step t on, enumerated."""
        found = dict.fromkeys(support, 0.0)
        for a in range(ACTIONS):
            followed = t + 1 < 3 and a == actions[t + 1]
            ways = after(t + 1) if followed else {a - 2: 0.5, a: 0.5}
            for value, p in ways.items():
                if p:
                    found[int(rewards[t]) + value] += p / ACTIONS
        return found

    assert_close(target_K, torch.tensor([after(0)[z] for z in support]))


# --- properties and refusals -------------------------------------------------------------------------------


def test_at_the_soft_optimum_the_target_of_any_path_is_the_optimal_value(make_games) -> None:
    """For any behaviour policy, G = Q*(s, a) where Q̄ = Q* and π is its softmax.

    An n-step return of the same steps is wrong, because the behaviour policy was worse.
    """
    states, alpha, gamma = 6, 0.5, 0.8
    generator = torch.Generator().manual_seed(0)
    goes = torch.randint(states, (states, ACTIONS), generator=generator)
    pays = torch.randn(states, ACTIONS, generator=generator).float().double()
    q_SA = torch.zeros(states, ACTIONS)
    for _ in range(400):
        q_SA = pays + gamma * (alpha * (q_SA / alpha).logsumexp(-1))[goes]

    class Table(WaveQ):
        def predict(self, observation: Tensor) -> Tensor:
            return self.phase[:, observation[:, 0].long()]

    q_net = Table(0)
    q_net.phase = nn.Parameter(q_SA.expand(TWINS, -1, -1).clone())
    loss = SQNLoss(
        q_net=q_net,
        temperature=FixedTemperature(alpha=alpha),
        gamma=gamma,
        backup="expected_mean",
        policy_source="target_mean",
        backup_entropy=True,
        seed=0,
    )
    ring, state, no = make_ring(200, 1), 0, torch.tensor([False])
    for _ in range(150):
        action = int(torch.randint(ACTIONS, (), generator=generator))
        following, reward = int(goes[state, action]), pays[state, action].float().reshape(1)
        frames = [torch.full((1, 2), float(each)) for each in (state, following)]
        step = Step(
            frames[1], frames[1], reward, no, no, no, reward, log_mu=torch.tensor([-math.log(ACTIONS)])
        )
        ring.append(frames[0], torch.tensor([action]), step)
        state = following
    place = ring.place(torch.arange(len(ring)))
    errors = []
    settings = {"gamma": gamma, "n": 6}
    for returns in (
        TreeBackup(**settings, lmbda=1.0),
        Retrace(**settings, lmbda=1.0),
        NStep(**settings, soft=False),
    ):
        batch = returns.gather(ring, place)
        y_B = loss.target(batch, q_net.values(batch.observation))
        errors.append((y_B - q_SA[batch.observation[:, 0].long(), batch.action]).abs().max().item())
    assert max(errors[:2]) < 1e-6  # rewards and discounts are float32
    assert errors[2] > 1


def test_no_gradient_flows_into_the_target(make, make_games) -> None:
    (ring, place), loss = played_ring(make_games), make()
    loss.target_q_net.requires_grad_()
    batch = TreeBackup(gamma=GAMMA, n=3, lmbda=1.0).gather(ring, place)
    loss.compute(batch).losses["loss_q"].backward()
    assert loss.target_q_net.phase.grad is None
    assert loss.q_net.phase.grad is not None


def test_a_path_does_not_read_rows_after_the_end_of_its_episode(make_games) -> None:
    """Frames that were never written may be NaN; 0 · NaN is NaN."""
    ring, games = make_ring(60, 3), make_games(3, 0.2)
    ring.frames.main.fill_(math.nan)
    for _ in range(9):
        ring.append(*games.play())
    path = TreeBackup(gamma=GAMMA, n=5, lmbda=1.0).gather(ring, ring.place(torch.arange(len(ring)))).path
    assert path.next_observation.isfinite().all()
    assert (path.trace[:, -1] == 0).all()
    assert set(path.trace.flatten().tolist()) == {0, 1}
    for before, after in pairwise(path.trace.T):  # once a trace is 0 it stays 0
        assert (after <= before).all()


@pytest.mark.parametrize(
    ("field", "value"), [("n", 0), ("n", 1.5), ("n", True), ("lmbda", -0.1), ("lmbda", 1.1), ("gamma", 2)]
)
def test_settings_out_of_range_are_refused(field: str, value: Any) -> None:
    with pytest.raises(SettingError, match=field):
        TreeBackup(**{"gamma": 0.5, "n": 3, "lmbda": 1.0} | {field: value})
