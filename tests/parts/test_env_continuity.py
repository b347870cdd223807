"""Every environment, row by row, against plain games stepped beside it with the same seeds and actions.

What must hold: the next observation of a last step is the true final one, never a reset's; *terminated* and
*truncated* are never mixed; a lost life is terminal and does not end the game; scores are the full game's;
nothing that was returned is overwritten later. It holds for ``begin``/``advance`` and TorchRL's Collector.
"""

import json
import re
import warnings
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import gymnasium
import numpy as np
import pytest
import safetensors.torch
import torch
from ale_py import ALEInterface, roms
from ale_py.env import AtariEnv as AleEnv
from gymnasium import spaces
from gymnasium.wrappers import FrameStackObservation, TransformObservation
from pools import Alone
from tensordict import TensorDict
from torchrl.envs.utils import check_env_specs

from sqn_rl.errors import EnvError, RestoreError
from sqn_rl.parts.env.atari import AtariEnv
from sqn_rl.parts.env.atari_ram import AtariRamEnv
from sqn_rl.parts.env.base import BatchedEnv
from sqn_rl.parts.env.envpool import EnvPoolEnv
from sqn_rl.parts.env.gym import GymEnv
from sqn_rl.parts.env.minatar import MinAtarEnv
from sqn_rl.types import Step

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # TorchRL's, about itself
    from torchrl.collectors import Collector

SEED, N = 7, 2
COLUMNS = [name for name in Step._fields if name not in Step._field_defaults]


class ToyEnv(gymnasium.Env):
    """Samples its observation space; its actions are −1, 0, 1; ends by chance. Boxes reuse one buffer."""

    def __init__(self, space: spaces.Space) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(3, start=-1)
        self.buffer = np.empty(space.shape, space.dtype) if isinstance(space, spaces.Box) else None

    def _observe(self) -> Any:
        sample = self.observation_space.sample()
        if self.buffer is None:
            return sample
        self.buffer[...] = sample
        return self.buffer

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space.seed(int(self.np_random.integers(2**31)))
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        assert action in (-1, 0, 1)
        return self._observe(), action + self.np_random.normal(), self.np_random.random() < 0.15, False, {}


TOYS = {
    "float64": spaces.Box(-1, 1, (2, 2), np.float64),
    "bytes": spaces.Box(0, 255, (6,), np.uint8),
    "gray": spaces.Box(0, 255, (4, 3), np.uint8),
    "channels_first": spaces.Box(0, 255, (2, 4, 3), np.uint8),
    "channels_last": spaces.Box(0, 255, (4, 3, 2), np.uint8),
    "discrete": spaces.Discrete(5, start=2),
    "multi_discrete": spaces.MultiDiscrete([3, 2]),
    "multi_binary": spaces.MultiBinary(4),
    "tuple": spaces.Tuple((spaces.Discrete(3), spaces.Box(-1, 1, (2,)))),
    "dict": spaces.Dict(
        {"a": spaces.Box(0, 9, (2,)), "b": spaces.Tuple((spaces.MultiBinary(2), spaces.Discrete(2)))}
    ),
}
for name, space in TOYS.items():
    gymnasium.register(f"toy/{name}-v0", ToyEnv, kwargs={"space": space}, max_episode_steps=9)


@dataclass
class Case:
    """One environment, and the events that must happen within ``steps`` steps of random play."""

    kind: type[BatchedEnv]
    settings: dict[str, Any]
    steps: int
    happens: set[str] = field(default_factory=lambda: {"terminated", "truncated"})
    seed_every: int = 0

    def env(self, n: int = N) -> BatchedEnv:
        env = self.kind(**self.settings, num_envs=n, seed=SEED)
        env.seed_every = self.seed_every
        return env

    def games(self, n: int = N) -> list["Game"]:
        return [Game(self, i) for i in range(n)]


class Screens:
    """The observations of ale-py's vector environment, computed by hand from a single console."""

    action_space = spaces.Discrete(18)

    def __init__(self, *, game: str, frame_skip: int, frame_stack: int, **settings: Any) -> None:
        assert (settings["noop_max"], settings["fire_reset"]) == (0, False)
        self.console, self.rom = ALEInterface(), roms.get_rom_path(game)
        self.console.setFloat("repeat_action_probability", settings["sticky_actions"])
        self.frame_skip, self.max_frames = frame_skip, settings["max_frames"] or np.inf
        self.stack = np.zeros((frame_stack, 84, 84), np.uint8)
        self.observation_space = spaces.Box(0, 255, self.stack.shape, np.uint8)

    def _show(self) -> np.ndarray:
        """Put the brighter of the last two screens on the stack, shrunk first in width, then in height."""
        self.screens[0] = np.maximum(*self.screens)
        image = shrink(shrink(self.screens[0].T.astype(np.float32)).T)
        self.stack = np.concatenate([self.stack[1:], np.rint(image).astype(np.uint8)[None]])
        return self.stack

    def reset(self, *, seed: int | None) -> tuple[np.ndarray, dict]:
        if seed is not None:
            self.console.setInt("random_seed", seed % 2**31)
            self.console.loadROM(self.rom)
        self.console.reset_game()
        self.frames, self.stack = 0, np.zeros_like(self.stack)
        screen = self.console.getScreenGrayscale()
        self.screens = [screen, np.zeros_like(screen)]
        return self._show(), {"lives": self.console.lives()}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        score, held = 0, self.console.getMinimalActionSet()[action]
        for left in reversed(range(self.frame_skip)):
            score += self.console.act(held)
            if self.console.game_over():
                break  # before the screen is read: the last one of a game is an old one
            if left < 2:
                self.screens[left] = self.console.getScreenGrayscale()
        self.frames += self.frame_skip
        over, late = self.console.game_over(), self.frames >= self.max_frames
        return self._show(), score, over, late, {"lives": self.console.lives()}


def shrink(image: np.ndarray, rows: int = 84) -> np.ndarray:
    """Scale to so many rows: each the mean of the area it covers, in the order in which OpenCV adds."""
    scale = len(image) / rows
    total = np.zeros((rows, image.shape[1]), np.float32)
    for tap in range(int(scale) + 2):
        at = np.floor(np.arange(rows) * scale).astype(int) + tap
        covered = np.minimum(at + 1, np.arange(1, rows + 1) * scale) - np.maximum(at, np.arange(rows) * scale)
        weight = np.where(covered > 1e-3, covered / scale, 0).astype(np.float32)
        total += weight[:, None] * image[np.minimum(at, len(image) - 1)]
    return total


class Cells:
    """MinAtar's own environment: a new one for every episode, as it repeats an action across episodes."""

    action_space = spaces.Discrete(6)

    def __init__(self, *, game: str, minimal_actions: bool, max_episode_steps: int, **settings: Any) -> None:
        from minatar import Environment

        ours = ("sticky_action_prob", "difficulty_ramping")
        self.make = partial(Environment, game, **{name: settings[name] for name in ours})
        self.minimal, self.limit = minimal_actions, max_episode_steps
        channels = self.make().state_shape()[-1]
        self.observation_space = spaces.Box(0, 1, (channels, 10, 10), np.bool_)

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict]:
        self.game, self.steps = self.make(), 0
        self.game.seed(seed)
        self.game.reset()
        return self.game.state().transpose(2, 0, 1), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        score, over = self.game.act(self.game.minimal_action_set()[action] if self.minimal else action)
        self.steps += 1
        return self.game.state().transpose(2, 0, 1), score, over, self.steps >= self.limit, {}


class Game:
    """A plain game, stepped alone: the reference for one row."""

    def __init__(self, case: Case, i: int) -> None:
        settings, self.seed_every = case.settings, case.seed_every
        self.id, self.stack = settings.get("id", ""), settings.get("frame_stack", 0)
        keys = (np.random.SeedSequence(SEED, spawn_key=(i, k)) for k in count())
        self.seeds = (int(key.generate_state(1)[0]) % 2**31 for key in keys)
        if case.kind is GymEnv:
            self.game = gymnasium.make(settings["id"], disable_env_checker=True, **settings.get("kwargs", {}))
            if stack := settings.get("frame_stack"):
                copied = TransformObservation(self.game, np.copy, None)
                self.game = FrameStackObservation(copied, stack, padding_type="zero")
        elif case.kind is EnvPoolEnv:
            self.game = Alone(settings["id"], **settings["kwargs"])
        elif case.kind is AtariEnv:
            self.game = Screens(**settings)
        elif case.kind is MinAtarEnv:
            self.game = Cells(**settings)
        else:
            self.game = AleEnv(
                settings["game"],
                obs_type="ram",
                frameskip=settings["frame_skip"],
                repeat_action_probability=settings["sticky_actions"],
                max_num_frames_per_episode=settings["max_frames"],
            )
        self.clips, self.counts_lives = settings.get("clip_reward", False), settings.get("life_loss", False)
        self.returns, self.total = [], 0.0

    def _observation(self, observation: Any) -> torch.Tensor:
        flat = torch.as_tensor(spaces.flatten(self.game.observation_space, observation))
        if isinstance(self.game, Alone):
            return flat.float()
        if self.stack or flat.dtype == torch.uint8:
            image = flat.reshape(observation.shape)
            image = image[None] if observation.shape == (4, 3) else image
            image = image.movedim(-1, -3) if "channels_last" in self.id else image
            return image if flat.dtype == torch.uint8 else image.float().flatten(1)
        return flat.reshape(self.game.observation_space.shape) if flat.dtype == torch.bool else flat.float()

    def reset(self, *, seeded: bool = True) -> torch.Tensor:
        observation, info = self.game.reset(seed=next(self.seeds) if seeded else None)
        self.total, self.lives = 0.0, info.get("lives", 0)
        self.since_seed = 0 if seeded else self.since_seed
        return self._observation(observation)

    def step(self, action: int) -> Step:
        """One row of a :class:`Step`; ``observation`` is the reset's where the game ended."""
        self.since_seed += 1
        raw, score, over, late, info = self.game.step(action + int(self.game.action_space.start))
        successor = self._observation(raw).clone()
        lost_life = self.counts_lives and info["lives"] < self.lives
        self.lives, self.total = info.get("lives", 0), self.total + float(score)
        if over or late:
            self.returns.append(self.total)
        return Step(
            observation=self.reset(seeded=self.since_seed > self.seed_every) if over or late else successor,
            next_observation=successor,
            reward=torch.tensor(np.sign(score) if self.clips else score).float(),
            terminated=torch.tensor(over or lost_life),
            truncated=torch.tensor(late and not over and not lost_life),
            ended=torch.tensor(over or late),
            score=torch.tensor(score, dtype=torch.float64),
        )


def atari(game: str, steps: int, happens: set[str], **settings: Any) -> Case:
    usual = {
        "sticky_actions": 0.25,
        "frame_skip": 8,
        "clip_reward": False,
        "life_loss": False,
        "max_frames": None,
    }
    seed_every = settings.pop("seed_every", 1000)
    return Case(AtariRamEnv, {"game": game, "workers": 0, **usual, **settings}, steps, happens, seed_every)


def screens(game: str, steps: int, happens: set[str], **settings: Any) -> Case:
    usual = atari(game, steps, happens, clip_reward=True, life_loss=True).settings
    del usual["workers"]
    seed_every = settings.pop("seed_every", 1000)
    more = {"frame_stack": 4, "noop_max": 0, "fire_reset": False, "threads": 2}
    return Case(AtariEnv, {**usual, **more, **settings}, steps, happens, seed_every)


def pool(id: str, steps: int, happens: set[str], **kwargs: Any) -> Case:
    usual = {"keys": [], "frame_stack": 1, "clip_reward": False, "threads": 2}
    return Case(EnvPoolEnv, {"id": id, "kwargs": kwargs, **usual}, steps, happens, seed_every=10**9)


def cells(game: str, happens: set[str], **settings: Any) -> Case:
    usual = {
        "sticky_action_prob": 0.1,
        "minimal_actions": True,
        "difficulty_ramping": True,
        "clip_reward": False,
        "max_episode_steps": 70,
    }
    return Case(MinAtarEnv, {"game": game, **usual, **settings}, 250, happens)


CASES = {
    "cartpole": Case(GymEnv, {"id": "CartPole-v1"}, 150, {"terminated"}),
    "cartpole, time limit": Case(GymEnv, {"id": "CartPole-v1", "kwargs": {"max_episode_steps": 15}}, 150),
    "acrobot": Case(GymEnv, {"id": "Acrobot-v1", "kwargs": {"max_episode_steps": 40}}, 100, {"truncated"}),
    "cartpole, masked": Case(GymEnv, {"id": "sqn_rl/CartPoleMasked-v1"}, 150, {"terminated"}),
    "recall": Case(
        GymEnv,
        {"id": "sqn_rl/Recall-v0", "kwargs": {"delay": 4, "cues": 3}},
        60,
        {"terminated", "scored"},
    ),
    "lunarlander": Case(GymEnv, {"id": "LunarLander-v3", "kwargs": {"max_episode_steps": 75}}, 250),
    **{name: Case(GymEnv, {"id": f"toy/{name}-v0"}, 60) for name in TOYS},
    **{
        f"{name}, stacked": Case(GymEnv, {"id": f"toy/{name}-v0", "frame_stack": 3}, 60)
        for name in ("float64", "gray", "channels_first", "channels_last")
    },
    "pong": atari("pong", 100, {"truncated", "scored"}, clip_reward=True, life_loss=True, max_frames=500),
    "breakout": atari(
        "breakout", 200, {"terminated", "lost a life", "scored"}, clip_reward=True, life_loss=True
    ),
    "breakout, plain": atari("breakout", 150, {"terminated"}, seed_every=50),
    "ms_pacman": atari(
        "ms_pacman",
        200,
        {"truncated", "lost a life", "clipped"},
        clip_reward=True,
        life_loss=True,
        max_frames=900,
    ),
    "pong, screen": screens("pong", 50, {"truncated", "scored"}, max_frames=300, seed_every=0),
    "breakout, screen": screens("breakout", 150, {"terminated", "lost a life", "scored"}, seed_every=50),
    "qbert, screen": screens(
        "qbert", 100, {"truncated", "lost a life", "clipped"}, max_frames=700, frame_stack=2
    ),
    "cartpole, pool": pool("CartPole-v1", 60, {"terminated", "truncated"}, max_episode_steps=15),
    "grid, pool": pool(
        "MiniGrid-Empty-5x5-v0", 150, {"terminated", "truncated", "scored"}, max_episode_steps=40
    ),
    "asterix, cells": cells("asterix", {"terminated", "scored"}, sticky_action_prob=0.0),
    "breakout, cells": cells("breakout", {"terminated", "scored"}, minimal_actions=False),
    "freeway, cells": cells("freeway", {"truncated"}),
    "seaquest, cells": cells("seaquest", {"terminated", "truncated"}, sticky_action_prob=0.5),
    "space_invaders, cells": cells(
        "space_invaders", {"terminated", "truncated", "scored"}, clip_reward=True, difficulty_ramping=False
    ),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    if "LunarLander" in CASES[request.param].settings.get("id", ""):
        pytest.importorskip("Box2D", exc_type=ImportError)
    if CASES[request.param].kind is MinAtarEnv:
        pytest.importorskip("minatar")
    if CASES[request.param].kind is EnvPoolEnv:
        pytest.importorskip("envpool")
    return CASES[request.param]


def seen(steps: list[Step]) -> set[str]:
    """The events in these steps, so that no test passes because nothing happened."""
    happened = set()
    for step in steps:
        flags = {
            "terminated": step.terminated & step.ended,
            "truncated": step.truncated,
            "lost a life": step.terminated & ~step.ended,
            "clipped": step.reward != step.score,
            "scored": step.score != 0,
        }
        happened |= {what for what, flag in flags.items() if flag.any()}
    return happened


def test_advance_equals_plain_games_stepped_by_hand(case: Case) -> None:
    env, games = case.env(), case.games()
    assert torch.equal(env.begin(), torch.stack([game.reset() for game in games]))
    generator = torch.Generator().manual_seed(SEED)
    action_TN = torch.randint(env.n_actions, (case.steps, N), generator=generator)
    answers = [env.advance(action_N) for action_N in action_TN]  # all first: nothing may be overwritten
    total_N, returns = torch.zeros(N, dtype=torch.float64), [[] for _ in games]
    for action_N, answer in zip(action_TN, answers, strict=True):
        rows = [game.step(action) for game, action in zip(games, action_N.tolist(), strict=True)]
        assert answer.action_mask is None
        for name in COLUMNS:
            column, expected = getattr(answer, name), torch.stack([getattr(row, name) for row in rows])
            assert column.dtype == expected.dtype
            assert torch.equal(column, expected), name
        assert not (answer.terminated & answer.truncated).any()
        total_N += answer.score
        for i in answer.ended.nonzero().flatten().tolist():
            returns[i].append(total_N[i].item())
            total_N[i] = 0
    assert returns == [game.returns for game in games]
    assert case.happens <= seen(answers)


def test_a_torchrl_collector_equals_plain_games_stepped_by_hand(case: Case) -> None:
    env, games = case.env(), case.games()
    torch.manual_seed(SEED)
    collector = Collector(env, frames_per_batch=N * 50, total_frames=N * 50 * -(-case.steps // 50))
    now_NS = torch.stack([game.reset() for game in games])
    steps = []
    for batch in collector:
        for t in range(50):
            row_N = batch[:, t]
            assert torch.equal(row_N["observation"], now_NS)
            rows = [game.step(action) for game, action in zip(games, row_N["action"].tolist(), strict=True)]
            step = Step(*(torch.stack([getattr(row, name) for row in rows]) for name in COLUMNS))
            assert torch.equal(row_N["next", "observation"], step.next_observation)
            for key in ("reward", "terminated", "truncated"):
                assert torch.equal(row_N["next", key].squeeze(-1), getattr(step, key)), key
            assert torch.equal(row_N["next", "done"].squeeze(-1), step.terminated | step.truncated)
            now_NS = step.observation
            steps.append(step)
    collector.shutdown()
    assert case.happens <= seen(steps)


@pytest.mark.parametrize("n", [1, 2])
def test_torchrl_accepts_the_specs(case: Case, n: int) -> None:
    env = case.env(n)
    check_env_specs(env)
    assert env.batch_size == (n,)
    assert env.action_spec.n == env.n_actions
    assert env.observation_spec["observation"].dtype == env.observation_dtype == env.begin().dtype
    assert env.begin().shape == (n, *env.observation_shape)


def test_environments_with_the_same_seed_have_the_same_observations(case: Case) -> None:
    def stream(env: BatchedEnv) -> list[torch.Tensor]:
        first = [env.begin()]
        return first + [env.advance(torch.zeros(N, dtype=torch.int64)).next_observation for _ in range(20)]

    for one, other in zip(stream(case.env()), stream(case.env()), strict=True):
        assert torch.equal(one, other)


def test_a_closed_environment_refuses_every_call(case: Case) -> None:
    env = case.env()
    env.begin()
    env.close()
    action = torch.zeros(N, dtype=torch.int64)
    step = partial(env.step, TensorDict({"action": action}, N))
    for attempt in (env.begin, env.reset, partial(env.send, action), partial(env.advance, action), step):
        with pytest.raises(EnvError, match=f"^{re.escape(env.name)}, step 0: it is closed; make a new one$"):
            attempt()


def written(state: dict[str, Any]) -> dict[str, Any]:
    """A state as it is read back from a checkpoint on disk."""
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    rest = json.dumps({key: value for key, value in state.items() if key not in tensors})
    return {**json.loads(rest), **safetensors.torch.load(safetensors.torch.save(tensors))}


def test_a_restored_environment_continues_exactly_like_the_original(case: Case) -> None:
    env = case.env()
    env.begin()
    if not env.restorable:
        for attempt in (env.state_dict, partial(env.load_state_dict, {})):
            with pytest.raises(RestoreError, match=f"{env.name}: EnvPoolEnv cannot"):
                attempt()
        return
    action_TN = torch.randint(env.n_actions, (case.steps, N), generator=torch.Generator().manual_seed(SEED))
    states, answers = [], []
    for action_N in action_TN:
        states.append(env.state_dict())
        answers.append(env.advance(action_N))
    ends = [t + 1 for t, answer in enumerate(answers) if answer.ended.any()]
    for t in {0, ends[0], case.steps // 2}:
        other = case.kind(**case.settings, num_envs=N, seed=SEED + 1)
        other.seed_every = case.seed_every
        assert torch.equal(other.load_state_dict(written(states[t])), states[t]["observation"])
        for action_N, answer in zip(action_TN[t:], answers[t:], strict=True):
            step = other.advance(action_N)
            for name in COLUMNS:
                assert torch.equal(getattr(step, name), getattr(answer, name)), name
        for key, value in env.state_dict().items():
            assert torch.equal(torch.as_tensor(other.state_dict()[key]), torch.as_tensor(value)), key


def test_torchrl_ends_the_game_after_a_lost_life_only_at_a_full_reset() -> None:
    env = CASES["breakout"].env(1)
    [game] = CASES["breakout"].games(1)
    state = env.reset()
    game.reset()

    def lose_a_life() -> torch.Tensor:
        nonlocal state
        while True:
            state = env.step(env.rand_action(state))
            row = game.step(state["action"].item())
            if row.terminated:
                assert not row.ended
                return row.observation
            state = env.step_mdp(state)

    observation = lose_a_life()
    state = env.maybe_reset(env.step_mdp(state))
    assert torch.equal(state["observation"][0], observation)
    assert not state["done"].any()
    lose_a_life()
    state = env.reset()
    assert torch.equal(state["observation"][0], game.reset())


@pytest.mark.parametrize("name", ["cartpole", "pong", "pong, screen"])
def test_a_partial_torchrl_reset_resets_only_the_selected_rows(name: str) -> None:
    env, games = CASES[name].env(), CASES[name].games()
    env.reset()
    [game.reset() for game in games]

    def play() -> TensorDict:
        state = env.step(TensorDict({"action": torch.ones(N, dtype=torch.int64)}, [N]))
        [game.step(1) for game in games]
        return env.step_mdp(state)

    play()
    state = play().set("_reset", torch.tensor([[False], [True]]))
    before = state["observation"][0].clone()
    state = env.reset(state)
    assert torch.equal(state["observation"], torch.stack([before, games[1].reset()]))
    ahead, behind = (game.step(1).next_observation for game in games)
    state = env.step(TensorDict({"action": torch.ones(N, dtype=torch.int64)}, [N]))
    assert torch.equal(state["next", "observation"], torch.stack([ahead, behind]))


@pytest.mark.parametrize("name", ["cartpole, time limit", "qbert, screen"])
def test_consecutive_torchrl_rollouts_skip_no_game(name: str) -> None:
    """A full reset does not reset a game again that ``advance`` has just reset."""
    env, games = CASES[name].env(1), CASES[name].games(1)
    first = games[0].reset()
    for _ in range(3):
        rollout = env.rollout(200, set_truncated=False)
        assert rollout["next", "done"][0, -1]
        assert torch.equal(rollout["observation"][0, 0], first)
        rows = [games[0].step(action) for action in rollout["action"][0].tolist()]
        first = rows[-1].observation
        if not rows[-1].ended:  # a lost life: the full reset does end the game
            first = games[0].reset()
    assert torch.equal(env.reset()["observation"][0], first)
    assert torch.equal(env.reset()["observation"][0], games[0].reset())  # the second in a row is real
