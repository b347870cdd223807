"""The training loop of a learner with actors: it stores their chunks, and learns.

Requests are sent, and chunks are stored, at fixed points of the learner's sequence. So with ``order=cyclic``
a run does not depend on when a chunk was ready, on the engine, or on which process was lost.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from sqn_rl.errors import CheckpointError, EnvError, ReplayError, SqnError
from sqn_rl.parts.collect.base import Actors, Engine, Result, Ticket, WorkerLost, WorkerState
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.training.agent import Agent
from sqn_rl.training.collecting.worker import packed_weights
from sqn_rl.training.evaluation import Evaluation
from sqn_rl.training.events import Reporters
from sqn_rl.training.loop import LoopBase
from sqn_rl.training.plan import Plan
from sqn_rl.training.state import LearningState, not_of_this_recipe
from sqn_rl.training.stopping import Stopped
from sqn_rl.training.torch_modes import default_float32, flushed_denormals
from sqn_rl.types import ChunkSummary, Counters, Request

MAX_ACTOR_FAILURES = 3
"""How often an actor may be lost in a row, at one chunk, before the run gives up."""


@default_float32()
@flushed_denormals()
def learn(
    agent: Agent,
    env: BatchedEnv,
    plan: Plan,
    actors: Actors,
    engine: Engine,
    *,
    evaluate: Callable[[], Evaluation] | None = None,
    reporters: Sequence[Reporter] = (),
    should_stop: Callable[[], bool] = lambda: False,
    counters: Counters | None = None,
    state: Mapping[str, Any] | None = None,
) -> Counters:
    """Take a chunk, store it, ask for another with the newest weights, update; until the budget is spent.

    Args:
        agent: the parts; the replay has a lane for each actor.
        env: an example of the actors' environments; it is not played.
        plan: the budget, and the intervals of updates, metrics, checkpoints and evaluations.
        actors: the settings of the actors.
        engine: runs the actors; it was started.
        evaluate: runs an evaluation; None: no evaluations.
        reporters: receive the events of the run.
        should_stop: called once a chunk; True stops cleanly, with a checkpoint.
        counters: updated in place, so that they are known even if this raises.
        state: resume from this; a reporter's ``checkpoint`` receives such states.

    Returns:
        The counters.

    Raises:
        EnvError: an environment raised, or an actor is lost again and again.
        NumericsError: a loss, an observation, a reward or, at a checkpoint, a weight is NaN or infinite;
            or α is not above 0 there.
        ReplayError: a shard of the replay is lost.
    """
    run_state = LearnerState(agent, env, plan, actors, engine, counters or Counters())
    loop = LoopBase(run_state, plan, run_state.steps, evaluate, Reporters.of(reporters), should_stop)
    with run_state.random_state:
        run_state.begin(state)
    try:
        loop.begin(resumed=state is not None)
        while loop.advance():
            agent.anneal(loop.due.before)
            due = plan.total_updates(loop.due.now) - run_state.counters.updates
            loop.save_if_compiling(acts=False, learns=due > 0)
            with loop.saving_on_failure("the actors"):
                actor, summary, chunk = run_state.take(loop.reporters)
            run_state.store(actor, summary, chunk, loop.reporters)
            run_state.ask(actor)
            compiling = loop.interruptible_if_compiling(acts=False, learns=due > 0)
            with loop.saving_on_error(), run_state.random_state, compiling:
                for batch in agent.draw(plan.batch_size, due):
                    loop.count(agent.update(batch))
            loop.finish(run_state.metrics)
    except Stopped:
        pass
    except ReplayError:  # a shard of the replay is lost; the others are saved
        loop.checkpoint()
        raise
    return run_state.counters


class _Asked(NamedTuple):
    """A request in flight."""

    request: Request
    ticket: Ticket


class LearnerState(LearningState):
    """The state of a run that learns from actors, with their states and the requests in flight.

    Args:
        agent: the parts.
        env: an example of the actors' environments.
        plan: the plan of the run.
        actors: the settings of the actors.
        engine: runs the actors.
        counters: the counters of the run.
    """

    def __init__(
        self, agent: Agent, env: BatchedEnv, plan: Plan, actors: Actors, engine: Engine, counters: Counters
    ) -> None:
        super().__init__(agent, actors.actors * env.num_envs, plan.seed, counters)
        self._env, self._plan, self._actors, self._engine = env, plan, actors, engine
        self.replay: Any = agent.replay
        self.steps = actors.rows * env.num_envs
        """Environment steps of a chunk."""
        self._turn = self._asked_steps = self._newest = 0
        self._stored = [0] * actors.actors  # number of chunks, by actor
        self._states: list[WorkerState] = [None] * actors.actors
        self._asked: list[deque[_Asked]] = [deque() for _ in range(actors.actors)]
        self._weights: dict[int, tuple[np.ndarray, Any]] = {}  # by version; with the engine's handle
        self._lags, self._waited, self._since = list[int](), 0.0, time.perf_counter()
        self._restarts = 0

    def begin(self, resume_from: Mapping[str, Any] | None) -> None:
        """Ask every actor for its first chunks; or resume from a state. Call it inside ``random_state``.

        Raises:
            CheckpointError: the state is that of another run.
        """
        if resume_from is not None:
            self._resume(resume_from)
            return
        for _ in range(self._actors.depth):
            for actor in range(self._actors.actors):
                self.ask(actor)

    # --- requests and chunks --------------------------------------------------------------------------------

    def ask(self, actor: int) -> None:
        """Ask an actor for its next chunk, with the newest weights."""
        updates = self.counters.updates
        if not self._weights or updates - self._newest >= self._actors.sync_every:
            self._publish(updates, packed_weights(self.agent.loss))
        request = Request(
            serial=self._stored[actor] + len(self._asked[actor]),
            version=self._newest,
            env_steps=self._asked_steps,
            random=self._asked_steps < self._plan.warmup_steps,
            priorities=self.replay.prioritized,
        )
        self._asked_steps += self.steps
        self._send(actor, request)

    def _publish(self, version: int, weights: np.ndarray) -> None:
        """Give the engine new weights, and forget versions that no request needs."""
        self._newest = version
        needed = {each.request.version for asked in self._asked for each in asked}
        self._weights = {known: self._weights[known] for known in self._weights if known in needed}
        self._weights[version] = weights, self._engine.publish(weights)

    def _send(self, actor: int, request: Request) -> None:
        ticket = self._engine.ask(actor, self._weights[request.version][1], request)
        self._asked[actor].append(_Asked(request, ticket))

    def take(self, reporter: Reporter) -> tuple[int, ChunkSummary, Any]:
        """Wait for the next chunk, and keep its actor's state after it; a lost actor is restarted.

        Raises:
            EnvError: an actor is lost again and again.
        """
        began, failures = time.perf_counter(), Counter[int]()
        while True:
            actor = self._next_actor()
            try:
                summary, chunk, state = self._result(actor)
                break
            except WorkerLost as error:
                failures[actor] += 1
                if failures[actor] > MAX_ACTOR_FAILURES:
                    message = f"lost {failures[actor]} times in a row at chunk {self._stored[actor]}: {error}"
                    raise EnvError(f"actor {actor}", message) from error
                self._restarts += 1
                reporter.note(f"actor {actor} was lost, and continues after its last stored chunk: {error}")
                self._revive(actor)
        self._states[actor] = state
        self._turn += 1
        self._waited += time.perf_counter() - began
        return actor, summary, chunk

    def _next_actor(self) -> int:
        if self._actors.order == "cyclic":
            return self._turn % self._actors.actors
        return self._engine.ready([asked[0].ticket for asked in self._asked])

    def _result(self, actor: int) -> Result:
        asked = self._asked[actor][0]
        result = self._engine.result(asked.ticket)
        summary, request = result[0], asked.request
        if (summary.serial, summary.version) != (request.serial, request.version):
            raise EnvError(f"actor {actor}", f"chunk {summary.serial} came in place of {request.serial}")
        self._asked[actor].popleft()
        return result

    def _revive(self, actor: int) -> None:
        """Restart an actor after its last stored chunk, and send it the open requests again."""
        self._engine.revive(actor, self._states[actor])
        requests = [each.request for each in self._asked[actor]]
        self._asked[actor].clear()
        for request in requests:
            self._send(actor, request)

    def store(self, actor: int, summary: ChunkSummary, chunk: Any, reporter: Reporter) -> None:
        """Store a chunk, or a reference to it, in its actor's lane (line 6), and count its steps."""
        num_envs, counters = self._env.num_envs, self.counters
        columns = slice(actor * num_envs, (actor + 1) * num_envs)
        if summary.note:
            reporter.note(f"actor {actor}: {summary.note}")
        if summary.masked:
            self.agent.require_reads_masks()
        if summary.begins:
            self.episodes.lose(columns)
        self.replay.store_chunk(chunk, lane=actor)
        for score, ended in zip(summary.score, summary.ended, strict=True):
            counters.env_steps += num_envs
            counters.frames += num_envs * self._env.frame_skip
            self.episodes.record(score, ended, counters, reporter, columns)
        self._stored[actor] += 1
        self._lags.append(counters.updates - summary.version)

    def metrics(self) -> dict[str, Any]:
        """Metrics since the last call: the lag in updates, and the fraction of time spent waiting."""
        now = time.perf_counter()
        row = {
            "lag": sum(self._lags) / len(self._lags),
            "learner_wait": round(self._waited / (now - self._since), 3),
            "restarts": self._restarts,
            "actors_up": self._actors.actors,
        }
        self._lags, self._waited, self._since = [], 0.0, now
        return row

    # --- state ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state that :meth:`begin` takes."""
        versions = {each.request.version for asked in self._asked for each in asked} | {self._newest}
        collect = {
            **self._fixed_settings(),
            "turn": self._turn,
            "asked_steps": self._asked_steps,
            "newest": self._newest,
            "restarts": self._restarts,
            "lags": [*self._lags],
            "stored": [*self._stored],
            "workers": [*self._states],
            "asked": [[list(each.request) for each in asked] for asked in self._asked],
            "weights": {str(known): torch.from_numpy(self._weights[known][0]) for known in sorted(versions)},
        }
        return super().state_dict() | {"collect": collect}

    def _fixed_settings(self) -> dict[str, int]:
        """The settings that may not change when a run is resumed."""
        names = ("actors", "rows", "depth")
        return {**{name: getattr(self._actors, name) for name in names}, "envs": self._env.num_envs}

    def _resume(self, state: Mapping[str, Any]) -> None:
        """Load a state, and send the requests that were in flight."""
        collect = state.get("collect", {})
        for name, own in self._fixed_settings().items():
            if collect.get(name) != own:
                saved = f"{name} = {collect.get(name)}"
                raise CheckpointError(f"a run with {saved}; here {name} = {own}: this cannot change")
        try:
            self.load_state(state, self._env.n_actions)
            self.random_state.load_state_dict(state["torch"])
            self._turn, self._asked_steps = collect["turn"], collect["asked_steps"]
            self._stored, self._states = [*collect["stored"]], [*collect["workers"]]
            self._restarts, self._lags = collect["restarts"], [*collect["lags"]]
            for version, weights in collect["weights"].items():
                self._weights[int(version)] = weights.numpy(), self._engine.publish(weights.numpy())
            self._newest = collect["newest"]
            for actor, requests in enumerate(collect["asked"]):
                self._engine.revive(actor, self._states[actor])
                for request in requests:
                    self._send(actor, Request(*request))
        except SqnError:
            raise
        except Exception as error:
            raise not_of_this_recipe(error) from error
