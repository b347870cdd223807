"""EnvPool's environments against raw pools stepped by hand; refusals. More: ``test_env_continuity``."""

import re
import sys
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pools import Alone
from torch import Tensor

from sqn_rl.errors import EnvError, ObservationError, SettingError, to_install
from sqn_rl.parts.env.envpool import EnvPoolEnv
from sqn_rl.parts.env.football import COLOURS, FootballEnv
from sqn_rl.types import Step

pytest.importorskip("envpool")

SEED, N = 3, 3
SCENARIO = "academy_empty_goal_close"
MATCH = f"gfootball/{SCENARIO}-v1"
GRID, TOUR = "MiniGrid-Empty-5x5-v0", "TSP-v1"
BOTH = {"terminated", "truncated"}
SHORT = {"max_episode_steps": 9}
CASES: dict[str, tuple[dict[str, Any], int, set[str]]] = {
    "numbers": ({"id": "CartPole-v1", "kwargs": {"max_episode_steps": 12}}, 60, BOTH),
    "images": ({"id": GRID, "kwargs": {"max_episode_steps": 30}, "keys": ["image"]}, 200, BOTH),
    "a stack": ({"id": "Catch-v0", "frame_stack": 3, "clip_reward": True}, 40, {"terminated"}),
    "a dict": (
        {"id": GRID, "kwargs": {"max_episode_steps": 9}, "keys": ["mission", "direction"]},
        30,
        {"truncated"},
    ),
    "masks": ({"id": TOUR}, 50, {"terminated"}),
    "football": ({"id": MATCH, "kwargs": {"max_episode_steps": 24}}, 60, BOTH),
    "masks in info": ({"id": "Play2048-v1"}, 150, {"terminated"}),
}
"""Settings, steps, and the kinds of ends that must happen in them."""


def make(id: str = "CartPole-v1", **settings: Any) -> EnvPoolEnv:
    usual = {"keys": [], "frame_stack": 1, "clip_reward": False, "threads": 2, "num_envs": N, "seed": SEED}
    return EnvPoolEnv(**{"id": id, **usual, **settings})


def football(**settings: Any) -> FootballEnv:
    usual = {"max_episode_steps": None, "frame_stack": 1, "threads": 1, "num_envs": N, "seed": SEED}
    return FootballEnv(**{"scenario": SCENARIO, **usual, **settings})


def plain(settings: dict[str, Any], answer: Any, space: spaces.Space) -> np.ndarray:
    """The observation that a raw one should be converted to, before stacking."""
    if isinstance(space, spaces.Dict):
        keys = settings.get("keys") or [key for key in space.spaces if key != "action_mask"]
        if keys == ["image"]:
            return answer["image"].transpose(2, 0, 1)
        space = spaces.Dict({key: space[key] for key in keys})
        answer = {key: answer[key] for key in keys}
    if space.shape == (72, 96, 4):
        return answer.transpose(2, 0, 1)
    flat = spaces.flatten(space, answer)
    return flat if flat.dtype == np.uint8 else flat.astype(np.float32)


class Row:
    """One environment stepped by hand: the reference for every step."""

    def __init__(self, settings: dict[str, Any], i: int) -> None:
        self.settings = settings
        seed = next(np.random.SeedSequence(SEED, spawn_key=(i, k)) for k in count()).generate_state(1)[0]
        self.raw = Alone(settings["id"], **settings.get("kwargs", {}))
        self.began = self.raw.reset(seed=int(seed) % 2**31)
        self.stack = [np.zeros_like(self.frame(self.began[0]))] * (settings.get("frame_stack", 1) - 1)
        self.first = self.seen(self.began[0])
        self.mask = self.allowed(*self.began)

    def frame(self, answer: Any) -> np.ndarray:
        return plain(self.settings, answer, self.raw.observation_space)

    def seen(self, answer: Any) -> Tensor:
        if self.settings.get("frame_stack", 1) == 1:
            return torch.from_numpy(self.frame(answer).copy())
        self.stack = [*self.stack[-self.settings["frame_stack"] + 1 :], self.frame(answer)]
        return torch.from_numpy(np.stack(self.stack))

    def allowed(self, answer: Any, info: dict[str, Any], terminated: bool = False) -> Tensor | None:
        mask = answer.get("action_mask") if isinstance(answer, dict) else info.get("legal_action_mask")
        if mask is None:
            return None
        return torch.from_numpy(mask.astype(bool) | (terminated and not mask.any()))

    def step(self, action: int) -> Step:
        answer, score, terminated, truncated, info = self.raw.step(action + int(self.raw.action_space.start))
        before, following, now = self.mask, self.allowed(answer, info, terminated), self.seen(answer)
        successor, self.mask = now, following
        if terminated or truncated:
            answer, info = self.raw.reset()
            self.stack = [np.zeros_like(each) for each in self.stack]
            now, self.mask = self.seen(answer), self.allowed(answer, info)
        reward = np.sign(score) if self.settings.get("clip_reward") else score
        flags = map(torch.tensor, (terminated, truncated, terminated or truncated))
        numbers = torch.tensor(reward, dtype=torch.float32), torch.tensor(score, dtype=torch.float64)
        return Step(now, successor, numbers[0], *flags, numbers[1], before, following)


def choose(mask: Tensor | None, n_actions: int, generator: torch.Generator) -> Tensor:
    """Any of the allowed actions, ``[N]``."""
    chances = torch.ones(N, n_actions) if mask is None else mask.float()
    return torch.multinomial(chances, 1, generator=generator).squeeze(-1)


@pytest.mark.parametrize("name", CASES)
def test_every_step_is_that_of_raw_pools_stepped_by_hand(name: str) -> None:
    settings, steps, happens = CASES[name]
    env = football(max_episode_steps=25) if name == "football" else make(**settings)
    rows = [Row(settings, i) for i in range(N)]
    assert torch.equal(env.begin(), torch.stack([row.first for row in rows]))
    generator, answers, expected = torch.Generator().manual_seed(SEED), [], []
    for _ in range(steps):
        action = choose(env.action_mask, env.n_actions, generator)
        env.send(action)
        answers.append(env.receive())
        expected.append([row.step(each) for row, each in zip(rows, action.tolist(), strict=True)])
        now = [row.mask for row in rows]
        assert env.action_mask is None if now[0] is None else torch.equal(env.action_mask, torch.stack(now))
    for answer, wanted in zip(answers, expected, strict=True):  # all later: nothing may be overwritten
        for column, each in zip(answer, zip(*wanted, strict=True), strict=True):
            if each[0] is None:
                assert column is None
            else:
                assert column.dtype == each[0].dtype
                assert torch.equal(column, torch.stack(each))
    flags = {key: torch.cat([getattr(step, key) for step in answers]) for key in ("terminated", "truncated")}
    assert not (flags["terminated"] & flags["truncated"]).any()
    assert {key for key, column in flags.items() if column.any()} == happens


def test_the_stream_depends_on_the_seed_and_not_on_the_threads() -> None:
    def stream(**settings: Any) -> Tensor:
        env, generator = make(GRID, keys=["image"], **settings), torch.Generator().manual_seed(0)
        first = env.begin()
        actions = torch.randint(env.n_actions, (80, N), generator=generator)
        return torch.stack([first, *(env.advance(action).observation for action in actions)])

    assert torch.equal(stream(threads=1), stream(threads=0))
    env = make(seed=1)
    begun, again = env.begin(), env.begin()
    assert not torch.equal(begun, again)
    env.set_seed(1)
    assert torch.equal(env.begin(), begun)
    assert not torch.equal(make(seed=2).begin(), begun)
    assert len({*map(tuple, begun.tolist())}) == N


def test_resetting_one_environment_mid_episode_does_not_change_the_others() -> None:
    env = make(GRID, keys=["image", "direction"])
    env.begin()
    for _ in range(2):
        before = env.advance(torch.full((N,), 0)).observation  # turn left
    after = env.begin([1])
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert not torch.equal(after[1], before[1])
    assert torch.equal(env.advance(torch.zeros(N, dtype=torch.int64)).observation[0], make_turned(3)[0])


def make_turned(times: int) -> Tensor:
    env = make(GRID, keys=["image", "direction"])
    env.begin()
    return [env.advance(torch.zeros(N, dtype=torch.int64)) for _ in range(times)][-1].observation


def test_external_observations_are_converted_like_those_of_the_environment() -> None:
    env, raw = make(GRID, keys=["image"]), Alone(GRID)
    answer, _ = raw.reset(seed=1)
    inside = torch.from_numpy(answer["image"].transpose(2, 0, 1).copy())
    image = answer["image"]
    ones: list[Any] = [answer, image, image.tolist()]
    batches: list[Any] = [image[None], [answer], [image], {"image": image[None]}]
    for given in [*ones, *batches]:
        rows, single = env.batch_of(given)
        assert torch.equal(rows, inside[None])
        assert single == any(given is one for one in ones)
    assert torch.equal(env.batch_of([answer, answer])[0], torch.stack([inside, inside]))
    with pytest.raises(ObservationError, match=r"\[7, 7, 3\] uint8"):
        env.batch_of({"picture": image})
    tour, raw = make(TOUR), Alone(TOUR)
    answer, _ = raw.reset(seed=1)
    assert np.array_equal(tour.mask_of(answer), answer["action_mask"])
    assert np.array_equal(tour.mask_of([answer, answer]), [answer["action_mask"]] * 2)
    assert env.mask_of(answer["coordinates"]) is None
    rows, _ = tour.batch_of(answer)
    assert np.array_equal(rows[0].numpy(), plain({"id": TOUR}, answer, raw.observation_space))


def test_a_mask_that_allows_no_action_raises_an_error() -> None:
    with pytest.raises(EnvError, match="Maze-v0, step 0: action_mask allows no action"):
        make("Maze-v0", num_envs=20).begin()  # in some of its mazes the first cell has no way out


def test_the_screen_is_envpools_rendering_or_the_observed_image() -> None:
    env = make(GRID, keys=["image"])
    env.show()
    env.begin()
    assert (env.screen().shape, env.screen().dtype) == ((160, 160, 3), np.uint8)
    catch = make("Catch-v0")  # neither rendered nor an image of bytes
    catch.show()
    catch.begin()
    assert catch.screen() is None
    unseen = make(GRID, keys=["image"])
    image = unseen.begin()[0].numpy().transpose(1, 2, 0)
    assert image.any()
    assert np.array_equal(unseen.screen(), image)


def test_clipping_is_for_training_only() -> None:
    settings = {"id": "Play2048-v1", "clip_reward": True}
    for training in (True, False):
        env, generator = make(**settings, training=training), torch.Generator().manual_seed(1)
        env.begin()
        steps = [env.advance(choose(env.action_mask, 4, generator)) for _ in range(20)]
        rewards, scores = (torch.stack([getattr(step, key) for step in steps]) for key in ("reward", "score"))
        assert scores.max() > 1
        assert torch.equal(rewards.double(), scores.sign() if training else scores)


def test_environments_have_the_step_limits_and_action_names_of_envpool() -> None:
    env = make(num_envs=1)
    assert (env.name, env.max_steps, env.restorable, env.n_actions) == ("CartPole-v1", 500, False, 2)
    assert make(kwargs={"max_episode_steps": 7}).max_steps == 7
    assert (env.action_names, make("Catch-v0").action_names) == (["left", "right"], ["0", "1", "2"])
    assert make(GRID).action_names[2] == "forward"
    assert make(GRID, kwargs={"action_max": 2}).action_names == ["turn left", "turn right", "forward"]
    assert make("Catch-v0").max_steps is None
    assert make("BabyAI-GoToRedBallGrey-v0").max_steps is None  # it has a limit, but does not report it


def test_football_has_action_names_and_a_screen_seen_from_above() -> None:
    env = football(num_envs=1, frame_stack=2)
    assert (env.name, env.n_actions, env.max_steps) == (MATCH, 19, 401)
    assert football(max_episode_steps=30).max_steps == 30
    assert (env.action_names[0], env.action_names[12], len(env.action_names)) == ("idle", "shot", 19)
    assert env.begin().shape == (1, 2, 4, 72, 96)
    own, other, ball, player = (torch.tensor(place) for place in ((0, 9), (20, 30), (40, 70), (40, 70)))
    seen = torch.zeros(1, 2, 4, 72, 96, dtype=torch.uint8)
    for channel, (y, x) in enumerate((own, other, ball, player)):
        seen[0, 1, channel, y, x] = 255
    seen[0, 0] = 255 - seen[0, 1]  # the frame before is not drawn
    env._current.observation = seen
    screen = env.screen()
    assert (screen.shape, screen.dtype) == ((360, 480, 3), np.uint8)
    counts = [(screen == colour).all(-1).sum() for colour in COLOURS]
    assert counts == [7 * 9, 81, 25, 81 - 25]  # at the edge, whole, the ball, and who has it
    assert (screen[202, 352] == COLOURS[2]).all()
    assert (screen[202 + 4, 352 - 4] == COLOURS[3]).all()
    assert (screen[102, 152] == COLOURS[1]).all()


@pytest.mark.parametrize("action", [-1, 2])
def test_an_action_out_of_range_is_refused(action: int) -> None:
    env = make()
    env.begin()
    with pytest.raises(SettingError, match=r"expected 3 of them, each in \[0, 2\)"):
        env.send(torch.tensor([0, 1, action]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "CartPol-v1"}, "an id of EnvPool, which has .*; did you mean 'CartPole-v1'"),
        ({"id": 3}, "a text"),
        ({"id": "Pendulum-v1"}, r"discrete actions; it has Box\("),
        ({"id": "TicTacToe-v1"}, "one player; it has 2"),
        ({"kwargs": {"gravity": 1}}, "what CartPole-v1 takes"),
        ({"kwargs": {"seed": 1}}, "no setting that is made here: seed"),
        ({"keys": ["image"]}, "none, as observations are Box"),
        ({"id": GRID, "keys": ["picture"]}, "some of direction, image, mission$"),
        ({"id": GRID, "keys": ["image", "image"]}, "some of direction"),
        ({"id": GRID, "keys": "image"}, "a list of texts"),
        ({"id": GRID, "frame_stack": 2}, "no Box"),
        ({"frame_stack": 0}, "at least 1"),
        ({"threads": -1}, "a whole number, at least 0"),
        ({"clip_reward": "false"}, "True or False"),
        ({"num_envs": 0}, "a whole number, at least 1"),
        ({"seed": -1}, "a whole number, at least 0"),
    ],
)
def test_an_invalid_setting_is_refused_with_what_is_expected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        make(**settings)
    assert error.value.field in settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"scenario": "academy_empty_goals"},
            ".*; did you mean 'academy_empty_goal'",
        ),
        ({"scenario": MATCH}, "one of 11_vs_11_competition, "),
        ({"max_episode_steps": 1}, "at least 2, or null"),
        ({"max_episode_steps": 9.5}, "at least 2, or null"),
        ({"frame_stack": 0}, "at least 1"),
    ],
)
def test_an_invalid_football_setting_is_refused_with_what_is_expected(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message) as error:
        football(**settings)
    assert error.value.field in settings


def test_an_unknown_football_scenario_is_refused_with_all_scenarios() -> None:
    with pytest.raises(SettingError) as error:
        football(scenario="academy")
    listed = error.value.expected.removeprefix("one of ").partition(";")[0].split(", ")
    assert len(listed) == 18
    assert SCENARIO in listed


def test_a_missing_envpool_is_refused_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(SettingError, match=re.escape(to_install("envpool"))):
        make()
