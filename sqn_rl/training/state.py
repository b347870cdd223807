"""The state of a run: everything that changes while it trains, as checkpoints save it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sqn_rl.errors import CheckpointError, RestoreError, SqnError, WiringError, explain
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.logger.base import Reporter
from sqn_rl.protocols import HasReturns, Replay
from sqn_rl.training.agent import Agent
from sqn_rl.training.player import Player, n_actions_if_recorded
from sqn_rl.training.random_state import GLOBAL_SEED_OFFSET, RESUMED_SEED_OFFSET, RandomState
from sqn_rl.types import Counters, Piece, Terms


@dataclass
class Episodes:
    """Returns and lengths of the episodes in progress, and returns of the last 20 episodes."""

    score: np.ndarray
    """The return so far, ``[N]`` float64: in float32, 100,000 rewards of 0.1 would be 9998.56."""
    length: np.ndarray
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def record(
        self,
        score: np.ndarray,
        ended: np.ndarray,
        counters: Counters,
        reporter: Reporter,
        columns: slice = slice(None),
    ) -> None:
        """Add one step of these environments, and report the episodes that ended. Both arrays are ``[N]``."""
        total, length = self.score[columns], self.length[columns]  # views
        total += score
        length += 1
        if not ended.any():
            return
        for each, steps in zip(total[ended].tolist(), length[ended].tolist(), strict=True):
            counters.episodes += 1
            self.recent.append(each)
            reporter.episode({"env_steps": counters.env_steps, "return": each, "length": steps})
        total[ended] = 0
        length[ended] = 0

    def lose(self, columns: slice = slice(None)) -> None:
        """Forget the episodes in progress in these environments."""
        self.score[columns] = 0
        self.length[columns] = 0

    def row(self) -> dict[str, float | None]:
        """The mean return of the last 20 episodes, for a log."""
        return {"return_mean": sum(self.recent) / len(self.recent) if self.recent else None}

    def state_dict(self) -> dict[str, Any]:
        """The state that :meth:`load_state_dict` takes."""
        score, length = torch.tensor(self.score), torch.tensor(self.length)
        return {"score": score, "length": length, "recent": [*self.recent]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state."""
        self.score, self.length = state["score"].double().numpy(), state["length"].numpy()
        self.recent.extend(state["recent"])


class LearningState:
    """Everything that changes while a run trains, with actors or without."""

    def __init__(self, agent: Agent, num_envs: int, seed: int, counters: Counters) -> None:
        self.agent, self.counters = agent, counters
        self.random_state = RandomState(GLOBAL_SEED_OFFSET + seed, agent.actor.device)
        self.episodes = Episodes(np.zeros(num_envs), np.zeros(num_envs, np.int64))
        self.terms: Terms | None = None
        self.evaluated_at: int | None = None
        """Environment steps at the last evaluation."""
        self.best: float | None = None
        """The highest mean return of an evaluation, if its weights are kept."""

    def state_dict(self) -> dict[str, Any]:
        """The state that :meth:`load_state` takes."""
        return {
            "counters": {**vars(self.counters)},
            "agent": self.agent.state_dict(),
            "torch": self.random_state.state_dict(),
            "evaluated_at": self.evaluated_at,
            "best": self.best,
            "terms": self.terms and self.terms._asdict(),
            "episodes": self.episodes.state_dict(),
        }

    def load_state(self, state: Mapping[str, Any], n_actions: int) -> None:
        """Load a state, except that of torch's global generators."""
        vars(self.counters).update(state["counters"])
        self.agent.load_state_dict(_with_valid_actions(state["agent"], n_actions))
        self.evaluated_at = state.get("evaluated_at")  # earlier versions did not write it
        self.best = state.get("best")
        self.terms = state["terms"] and Terms(**state["terms"])
        self.episodes.load_state_dict(state["episodes"])


def _require_room_for(env: BatchedEnv, replay: Replay) -> None:
    """Refuse environments other than those that the replay is made for."""
    if (ring := getattr(replay, "ring", None)) is not None:
        made, given = (ring.num_envs, [*ring.observation_shape]), (env.num_envs, [*env.observation_shape])
        if made != given:
            has = "{} environments with observations {}".format
            message = f"replay: {type(replay).__name__} is made for {has(*made)}; here are {has(*given)}"
            raise WiringError("replay", message)


class RunState(LearningState):
    """Everything that changes while a run trains with environments of its own."""

    def __init__(self, agent: Agent, env: BatchedEnv, seed: int, counters: Counters) -> None:
        _require_room_for(env, agent.replay)
        super().__init__(agent, env.num_envs, seed, counters)
        self.env, self.generator = env, torch.Generator().manual_seed(seed)
        returns = agent.replay.returns if isinstance(agent.replay, HasReturns) else None
        self.player = Player(agent.actor, env.num_envs, n_actions_if_recorded(env, returns))
        self.episodes_lost = False

    def begin_episodes(self) -> Tensor:
        """Begin new episodes and return their first observations."""
        self.agent.replay.cut()
        self.player.begin()
        return self.env.begin()

    def resume(self, state: Mapping[str, Any], seed: int, note: Callable[[str], None]) -> Tensor:
        """Load a state and return the current observations; if it has no episodes to restore, begin new ones.

        Call it inside ``random_state``.

        Raises:
            CheckpointError: the state is that of another recipe.
        """
        try:
            self.load_state(state, self.env.n_actions)
            self.generator.set_state(state["warm_up"])
            self.player.load_state_dict(state.get("player", {}))
            observation = self.env.load_state_dict(state["env"]) if state["env"] else None
            self.random_state.load_state_dict(state["torch"])
            if observation is not None:
                return observation
        except RestoreError as error:
            note(str(error))
            self.random_state.load_state_dict(state["torch"])
        except SqnError:
            raise
        except Exception as error:
            raise not_of_this_recipe(error) from error
        note(f"{self.env.name}: the episodes in progress are lost, and new ones begin")
        self.episodes.lose()
        self.env.set_seed(RESUMED_SEED_OFFSET + seed + self.counters.env_steps)
        return self.begin_episodes()

    def state_dict(self) -> dict[str, Any]:
        """The state that :meth:`resume` takes."""
        is_restorable = self.env.restorable and not self.episodes_lost
        rest = super().state_dict()
        first = {name: rest.pop(name) for name in ("counters", "agent")}  # checkpoints keep this order
        player = {"player": self.player.state_dict()} if self.player.is_recurrent else {}
        return {
            **first,
            "warm_up": self.generator.get_state(),
            **rest,
            **player,
            "env": self.env.state_dict() if is_restorable else None,
        }


def not_of_this_recipe(error: Exception) -> CheckpointError:
    """The error for a state that could not be loaded."""
    return CheckpointError(f"not the state of this recipe: {explain(error)}")


def _with_valid_actions(state: Mapping[str, Any], n_actions: int) -> Mapping[str, Any]:
    """The state of an agent, whose stored actions are checked while they are read."""
    replay = state["replay"]
    if "shards" in replay:
        shards = [shard and _with_valid_rows(shard, n_actions) for shard in replay["shards"]]
        return {**state, "replay": {**replay, "shards": shards}}
    return {**state, "replay": _with_valid_rows(replay, n_actions)}


def _with_valid_rows(replay: Mapping[str, Any], n_actions: int) -> Mapping[str, Any]:
    storage = replay.get("_storage", {})
    if "rows" not in storage:  # for example of a user's replay
        return replay
    return {**replay, "_storage": {**storage, "rows": _valid_rows(storage["rows"], n_actions)}}


def _valid_rows(rows: Iterable[Piece], n_actions: int) -> Iterator[Piece]:
    for begin, end, columns in rows:
        action = columns["action"]
        if len(action) and not 0 <= int(action.min()) <= int(action.max()) < n_actions:
            raise CheckpointError(
                f"replay: rows {begin} to {end} have an action that is not in [0, {n_actions})"
            )
        yield begin, end, columns
