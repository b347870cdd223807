"""The training loop, in the order of Algorithm 1."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor

from sqn_rl import functional as F
from sqn_rl.errors import EnvError, SettingError, SqnError, require
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.training.agent import Agent
from sqn_rl.training.evaluation import Evaluation, require_ours
from sqn_rl.training.events import Reporters
from sqn_rl.training.plan import Plan, Schedule
from sqn_rl.training.player import random_actions
from sqn_rl.training.state import LearningState, RunState
from sqn_rl.training.stopping import Interrupting, Stopped
from sqn_rl.training.torch_modes import default_float32, flushed_denormals
from sqn_rl.types import Counters, Step, Terms

COMPILING = "compiling, for up to a minute"
"""The phase in which the update, and acting, are compiled."""


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
    """Algorithm 1: act, update while the environments step, store; until the budget is spent or a stop.

    What is due at a step happens in this order: metrics, checkpoint, evaluation.

    Args:
        agent: the parts.
        env: N environments.
        plan: the budget, and the intervals of updates, metrics, checkpoints and evaluations.
        evaluate: runs an evaluation; None: no evaluations.
        reporters: receive the events of the run.
        should_stop: called once an iteration; True stops cleanly, after whole updates, with a checkpoint. If
            it is :class:`~sqn_rl.training.stopping.Interrupting`, a stop also interrupts compiling, and a
            second one environments that do not answer.
        counters: updated in place, so that they are known even if this raises.
        state: resume from this; a reporter's ``checkpoint`` receives such states.

    Returns:
        The counters.

    Raises:
        EnvError: an environment raised, died, or gave an invalid answer. The last whole step is saved.
        NumericsError: a loss, an observation, a reward or, at a checkpoint, a weight is NaN or infinite;
            or α is not above 0 there.
        SettingError: ``env`` is none of this package, ``plan`` no plan, or a reporter no reporter.
        WiringError: the replay is made for other environments.
    """
    require_ours(env)
    require(isinstance(plan, Plan), "plan", plan, "a Plan, such as experiment.run")
    require(
        evaluate is None or callable(evaluate), "evaluate", evaluate, "a function that evaluates, or None"
    )
    run_state = RunState(agent, env, plan.seed, counters or Counters())
    run = _Run(run_state, plan, evaluate, Reporters.of(reporters), should_stop)
    try:
        observation = run.observe(state)
        while run.advance():
            agent.anneal(run.due.before)
            with run.saving_on_error(), run_state.random_state:
                compiles = {"acts": run.acts_unmasked, "learns": run.updates_due > 0}
                run.save_if_compiling(**compiles)
                with run.interruptible_if_compiling(**compiles):
                    action = run.act(observation)  # line 4
                    run.send(action)  # line 5: the environments step while the learner learns
                    for batch in agent.draw(plan.batch_size, run.updates_due):  # lines 8 to 19
                        run.count(agent.update(batch))
                step = run.receive()
                agent.replay.store(observation, action, run.player.record(action, step))  # line 6
            observation = step.observation
            run.record(step)
            run.finish()
    except Stopped:
        pass
    return run.counters


class LoopBase:
    """The part that both training loops share: schedule, metrics, checkpoints, evaluations.

    Args:
        state: the state of the run.
        plan: the budget, and the intervals of updates, metrics, checkpoints and evaluations.
        num_envs: environment steps of an iteration.
        evaluate: runs an evaluation; None: no evaluations.
        reporters: receive the events.
        should_stop: called once an iteration.
    """

    def __init__(
        self,
        state: LearningState,
        plan: Plan,
        num_envs: int,
        evaluate: Callable[[], Evaluation] | None,
        reporters: Reporters,
        should_stop: Callable[[], bool],
    ) -> None:
        self.state, self.agent, self.counters = state, state.agent, state.counters
        self.due = Schedule(plan, num_envs, 0)
        self.reporters, self._plan, self._num_envs, self._evaluate = reporters, plan, num_envs, evaluate
        self._should_stop, self._stopped, self._advised = should_stop, False, set[str]()
        self._interrupting: Callable[[], AbstractContextManager[None]] = nullcontext
        self._waiting: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext()
        if isinstance(should_stop, Interrupting):
            self._interrupting, self._waiting = should_stop.interrupting, should_stop.waiting

    def begin(self, *, resumed: bool) -> None:
        """Start the schedule and the clock; after a resume, do an evaluation that is still due."""
        self.due = Schedule(self._plan, self._num_envs, self.counters.env_steps)
        self.reporters.begin(self.counters)
        if resumed:
            self._evaluate_if_due()
        self._clock = _Clock(self.counters.wall_s)

    def advance(self) -> bool:
        """Begin the next iteration; False if the budget is spent or a stop was requested."""
        if self.due.is_over or self._stopped:
            return False
        self.due.advance()
        return True

    def save_if_compiling(self, *, acts: bool, learns: bool) -> None:
        """Save a checkpoint before an iteration that compiles acting or learning and may be interrupted."""
        if self.agent.compiles(acts=acts, learns=learns):
            with self._clock.paused():
                self.checkpoint()

    @contextmanager
    def interruptible_if_compiling(self, *, acts: bool, learns: bool) -> Iterator[None]:
        """A context in which compiling, which takes long, may be interrupted after a checkpoint."""
        if not self.agent.compiles(acts=acts, learns=learns):
            yield
            return
        with self._clock.paused() as paused, self._phase(COMPILING), self._interrupting():
            yield
        self.reporters.note(f"compiled in {paused():.0f} s, which steps/s leaves out")

    def count(self, terms: Terms) -> None:
        """Count an update, and keep its terms for the metrics."""
        self.state.terms = terms
        self.counters.updates += 1

    def finish(self, more: Callable[[], Mapping[str, Any]] = dict) -> None:
        """Do what is due after an iteration: metrics, with ``more`` of them, a checkpoint, an evaluation."""
        self.counters.wall_s = self._clock.seconds()
        if self.state.terms and self.due.metrics:
            self._log(self.state.terms, more())
        with self._clock.paused():
            self._stopped = self._should_stop()
            self._save(is_due=self._stopped or self.due.checkpoint)
            if not self._stopped:
                self._evaluate_if_due()
                self._save(is_due=False)

    def _log(self, terms: Terms, more: Mapping[str, Any]) -> None:
        """Report metrics, and advice that is new."""
        row = self.counters.row() | measure(self.agent, terms) | self.state.episodes.row()
        self.reporters.metrics({**row, **more})
        for text in set(self.agent.advice()) - self._advised:
            self.reporters.note(text)
            self._advised.add(text)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self.reporters.phase(name)
        yield
        self.reporters.phase("")

    def _save(self, *, is_due: bool) -> None:
        """Save a checkpoint if it is due, or if a reporter has failed, whose error is then raised."""
        if is_due or self.reporters.have_failed:
            self.checkpoint()
        if self.reporters.have_failed:
            self.reporters.note(f"a reporter has failed; {self.counters.env_steps:,} steps are kept")
            self.reporters.require_working()

    def checkpoint(self) -> None:
        """Save the state."""
        self.agent.require_sound()
        self.reporters.checkpoint(self.counters, self.state.state_dict)

    @contextmanager
    def saving_on_failure(self, what: str) -> Iterator[None]:
        """A context that waits for ``what``, and saves the state if that fails or is interrupted.

        Args:
            what: for the message at a first request to stop; a second one interrupts.
        """
        try:
            with self._waiting(what):
                yield
        except (SqnError, Stopped):
            self.checkpoint()
            raise

    @contextmanager
    def saving_on_error(self) -> Iterator[None]:
        """A context that saves the state if a part raises an error that is none of this package."""
        try:
            yield
        except SqnError:
            raise
        except Exception:
            self._keep_steps()
            raise

    def _keep_steps(self) -> None:
        """Save the state after an error."""
        self.checkpoint()

    def _evaluate_if_due(self) -> None:
        """Evaluate if an evaluation is due; the state is saved if it fails or is interrupted."""
        state = self.state
        if not (self._evaluate and self.due.evaluation) or state.evaluated_at == self.due.now:
            return
        with self._phase("evaluating"), self.saving_on_failure("an evaluation"):
            row = {"env_steps": self.due.now} | self._evaluate().row()
        self.reporters.evaluation(row)
        state.evaluated_at = self.due.now
        if self._plan.checkpoint_best and (state.best is None or row["mean"] > state.best):
            state.best = row["mean"]
            self.reporters.best(row, self.agent.loss.state_dict)


class _Run(LoopBase):
    """The loop of :func:`train`, with environments of its own."""

    state: RunState

    def __init__(self, state: RunState, plan: Plan, *others: Any) -> None:
        super().__init__(state, plan, state.env.num_envs, *others)
        self._seed, self.env, self.player = plan.seed, state.env, state.player

    def observe(self, resume_from: Mapping[str, Any] | None) -> Tensor:
        """Begin new episodes, or resume from a state; return the current observations."""
        with self._waiting(self.env.name), self.state.random_state:
            if resume_from is None:
                observation = self.state.begin_episodes()
            else:
                observation = self.state.resume(resume_from, self._seed, self.reporters.note)
        if self.env.action_mask is not None:
            self.agent.require_reads_masks()
        self.begin(resumed=resume_from is not None)
        return observation

    @property
    def updates_due(self) -> int:
        """The number of updates in this iteration."""
        return self.due.total_updates - self.counters.updates

    @property
    def acts_unmasked(self) -> bool:
        """Whether the policy acts, and among all actions; with a mask, acting is not compiled."""
        return self.due.policy_acts and self.env.action_mask is None

    def act(self, observation: Tensor) -> Tensor:
        """The policy's actions, or in the warm-up uniformly random ones; only allowed actions are chosen."""
        if self.due.policy_acts:
            return self.player.act(observation, **self.env.act_options)
        if self.player.is_recurrent:  # random steps change its memory too
            self.player.act(observation, **self.env.act_options)
        return random_actions(self.env, self.state.generator)

    def send(self, action: Tensor) -> None:
        """Send the actions to the environments."""
        try:
            self.env.send(action)
        except SettingError as error:  # of an actor of the user
            self._keep_steps()
            who = type(self.agent.actor).__name__
            raise EnvError("actor", f"{who} gives an invalid action: {error}") from error

    def receive(self) -> Step:
        """The step of the environments; if they fail or are interrupted, a checkpoint is saved first."""
        try:
            with self._waiting(self.env.name):
                return self.env.receive()
        except (SqnError, Stopped):
            self._keep_steps()
            raise

    def _keep_steps(self) -> None:
        """Save the state as of the last whole step, after an error."""
        self.state.episodes_lost = True
        self.checkpoint()
        if steps := self.counters.env_steps:
            lost = "the episodes in progress are lost, and `sqn-resume` begins new ones"
            self.reporters.note(f"{steps:,} steps are kept; {lost}")

    def record(self, step: Step) -> None:
        """Count the steps of an iteration."""
        self.counters.env_steps = self.due.now
        self.counters.frames += self.env.num_envs * self.env.frame_skip
        self.state.episodes.record(step.score.numpy(), step.ended.numpy(), self.counters, self.reporters)


def measure(agent: Agent, terms: Terms) -> dict[str, Any]:
    """Metrics of the last update: reward units, nats, and the off-greedy mass as a fraction."""
    row = {name: loss.item() for name, loss in terms.losses.items()}
    row |= {"td_error": terms.td_error.abs().mean().item(), "q_mean": terms.q.mean().item()}
    if terms.log_pi is not None:
        row["entropy"] = F.entropy(terms.log_pi).mean().item()
        row["off_greedy"] = F.off_greedy_mass(terms.log_pi).mean().item()
    return row | agent.metrics()


class _Clock:
    """Counts seconds from a start value, except while it is paused."""

    def __init__(self, seconds: float) -> None:
        self._started = time.perf_counter() - seconds

    def seconds(self) -> float:
        return time.perf_counter() - self._started

    @contextmanager
    def paused(self) -> Iterator[Callable[[], float]]:
        """A context whose time is not counted; yields a function that returns the seconds since then."""
        began = time.perf_counter()
        yield lambda: time.perf_counter() - began
        self._started += time.perf_counter() - began
