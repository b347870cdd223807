"""The training loop, which reads like Algorithm 1."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from sqn_rl import functional as F
from sqn_rl.errors import SqnError, require
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.protocols import Reporter
from sqn_rl.training.agent import Agent
from sqn_rl.training.evaluation import Evaluation
from sqn_rl.training.events import Reporters
from sqn_rl.training.numerics import default_float32
from sqn_rl.training.state import RunState
from sqn_rl.training.stopping import Interrupting, Stopped
from sqn_rl.types import Counters, Step, Terms


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, and how often what happens; everything counted in environment steps.

    Raises:
        SettingError: a value is out of range.
    """

    steps: int
    """The budget: agent decisions over all environments."""
    warmup_steps: int
    """Uniformly random actions and no update until here."""
    update_ratio: float
    """Updates per environment step after the warm-up, kept exact whatever the number of environments."""
    batch_size: int
    """Transitions per update."""
    seed: int
    """Of the warm-up's random actions, and of what parts draw from torch's global generators."""
    log_every: int = 1000
    """Metrics are written at each multiple."""
    eval_every: int = 0
    """Evaluate at each multiple, and at the end; 0: only at the end."""
    checkpoint_every: int = 0
    """Write a checkpoint at each multiple, and at the end; 0: only at the end."""

    def __post_init__(self) -> None:
        require(self.steps > 0, "steps", self.steps, "at least 1 environment step")
        require(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more environment steps")
        require(
            self.update_ratio > 0, "update_ratio", self.update_ratio, "a positive number of updates per step"
        )
        require(self.batch_size > 0, "batch_size", self.batch_size, "at least 1 transition")

    def updates_due(self, env_steps: int) -> int:
        """How many updates there are to have been after this many environment steps: 29 of 100 with 0.29."""
        due = max(0, env_steps - self.warmup_steps) * self.update_ratio
        return int(round(due, 6))  # 100 · 0.29 is 28.99…96


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as zero: Adam's moments of dead units decay there, where processors crawl."""
    flushed = sys.float_info.min / 2 == 0  # as this thread has it, which torch does not say
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


@default_float32()
@flushed_denormals()
def train(
    agent: Agent,
    env: BatchedEnv,
    plan: Plan,
    *,
    evaluate: Callable[[], Evaluation] | None = None,
    reporters: Sequence[Reporter] = (),
    should_stop: Callable[[], bool] = lambda: False,
    counters: Counters | None = None,
    state: Mapping[str, Any] | None = None,
) -> Counters:
    """Algorithm 1: act, update while the games are played, store; until the budget is spent or a stop.

    What is due at a step happens in this order: metrics, checkpoint, evaluation.

    Args:
        agent: the parts.
        env: N environments.
        plan: how long, and how often what.
        evaluate: plays the evaluation games; None: no evaluation.
        reporters: are told what happens.
        should_stop: asked once a loop; a stop is clean, after whole updates, and writes a checkpoint. If it
            is :class:`~sqn_rl.training.stopping.Interrupting`, compiling is not waited for either; nor, when
            asked a second time, environments that do not answer.
        counters: where to count, for whoever wants to know how far it came if it raises.
        state: go on from here; what a reporter's ``checkpoint`` was given.

    Returns:
        The counters.

    Raises:
        EnvError: a game raised, died, or answered nonsense. There is a checkpoint of the last whole step.
        NumericsError: a loss is NaN or infinite; or an observation, a reward or, when it is time for a
            checkpoint, a weight, of which the same is true.
    """
    run = RunState(agent, env, plan.seed, counters or Counters())
    counters = run.counters
    everyone = Reporters(reporters)
    note = everyone.note
    interrupting = should_stop.interrupting if isinstance(should_stop, Interrupting) else nullcontext
    waiting = should_stop.waiting if isinstance(should_stop, Interrupting) else nullcontext
    try:
        with waiting(env.name), run.random_state:
            observation = run.begin() if state is None else run.go_on(state, plan.seed, note)
    except Stopped:
        return counters
    now = counters.env_steps

    def keep() -> None:
        agent.require_finite_weights()
        everyone.checkpoint(counters, run.state_dict)

    def evaluated(before: int) -> bool:
        """Evaluate, if it is time to; False: it was stopped."""
        due = _crosses(before, now, plan.eval_every) or now >= plan.steps
        if evaluate and due and run.evaluated_at != now:
            try:
                with waiting("an evaluation"):
                    row = evaluate().row()
            except Stopped:
                return False
            except SqnError:
                keep()
                raise
            everyone.evaluation({"env_steps": now} | row)
            run.evaluated_at = now
        return True

    def received() -> Step:
        """What the games answer; if they fail or are not waited for, what was learned is kept."""
        try:
            with waiting(env.name):
                return env.receive()
        except (SqnError, Stopped):
            run.games_lost = True
            keep()
            note(f"{counters.env_steps:,} steps are kept, but not the games: `sqn-resume` begins new ones")
            raise

    def log(before: int) -> None:
        """Tell the metrics, if it is time to, and new advice."""
        if run.terms and (_crosses(before, now, plan.log_every) or now >= plan.steps):
            everyone.metrics(counters.row() | measure(agent, run.terms) | run.episodes.row())
            for text in set(agent.advice()) - advised:
                note(text)
                advised.add(text)

    stopped = state is not None and not evaluated(now - env.num_envs)
    clock, advised = _Clock(counters.wall_s), set[str]()
    while now < plan.steps and not stopped:
        agent.anneal(now)
        before, now = now, now + env.num_envs
        acts = before >= plan.warmup_steps
        due = plan.updates_due(now) if acts and before else 0  # at first nothing is stored
        compiles = agent.compiles(acts=acts, learns=due > counters.updates)
        if compiles:
            with clock.paused():
                keep()  # as compiling may be stopped at any moment
        try:
            with run.random_state:
                with interrupting() if compiles else nullcontext():
                    if acts:
                        action = agent.actor.act(observation)  # line 4
                    else:
                        action = torch.randint(env.n_actions, (env.num_envs,), generator=run.generator)
                    env.send(action)  # line 5, which goes on while the learner learns
                    for batch in agent.draw(plan.batch_size, due - counters.updates):  # lines 8 to 19
                        run.terms = agent.update(batch)
                        counters.updates += 1
                step = received()
                agent.replay.store(observation, action, step)  # line 6
        except Stopped:
            break
        observation = step.observation
        counters.env_steps, counters.frames = now, counters.frames + env.num_envs * env.frame_skip
        run.episodes.record(step, counters, everyone)
        counters.wall_s = clock.seconds()
        log(before)
        with clock.paused():
            stopped = should_stop()
            if stopped or _crosses(before, now, plan.checkpoint_every) or now >= plan.steps:
                keep()
            if not stopped and not evaluated(before):
                keep()
                stopped = True
    return counters


def measure(agent: Agent, terms: Terms) -> dict[str, Any]:
    """What the last update says about the learner; reward units, nats, and off-greedy mass as a fraction."""
    row = {name: loss.item() for name, loss in terms.losses.items()}
    row |= {"td_error": terms.td_error.abs().mean().item(), "q_mean": terms.q.mean().item()}
    if terms.log_pi is not None:
        row["entropy"] = F.entropy(terms.log_pi).mean().item()
        row["off_greedy"] = F.off_greedy_mass(terms.log_pi).mean().item()
    return row | agent.metrics()


def _crosses(before: int, now: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (before, now]."""
    return every > 0 and now // every > before // every


class _Clock:
    """Counts the seconds in which it is not paused, from where it was."""

    def __init__(self, seconds: float) -> None:
        self._started = time.perf_counter() - seconds

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @contextmanager
    def paused(self) -> Iterator[None]:
        at = time.perf_counter()
        yield
        self._started += time.perf_counter() - at
