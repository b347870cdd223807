"""Google Research Football, from EnvPool."""

from typing import Annotated

import numpy as np

from sqn_rl.errors import require_one_of
from sqn_rl.parts.arguments import Range, typed
from sqn_rl.parts.env.pool.opening import package
from sqn_rl.parts.env.pool.pooled import PooledEnv

ACTIONS = (
    *("idle", "left", "top left", "top", "top right", "right", "bottom right", "bottom", "bottom left"),
    *("long pass", "high pass", "short pass", "shot", "sprint", "release direction", "release sprint"),
    *("sliding", "dribble", "release dribble"),
)
"""Action names, which EnvPool gives in its documentation only."""

PREFIX, SUFFIX = "gfootball/", "-v1"
"""What surrounds the name of a scenario in EnvPool's ids."""

CELL = 5
"""Height and width of a cell of the minimap on the screen, in pixels."""

MATCH_BYTES = 52_000_000
"""Memory of one match."""

GRASS, LINE, GOAL = (52, 105, 52), (92, 145, 92), (190, 205, 190)
COLOURS = ((90, 150, 255), (235, 75, 65), (255, 255, 255), (255, 215, 60))
"""The colours of the minimap's channels: own team, other team, ball, and controlled player."""

MARKS = ((0, 4), (1, 4), (3, 4), (2, 2))
"""The channels in the order in which they are drawn, each with the pixels around a mark's centre."""


Limit = Annotated[int, Range(lambda value: value >= 2, "a whole number, at least 2")]


class FootballEnv(PooledEnv):
    """N matches of Google Research Football, stepped by EnvPool; ``[4, 72, 96]``  (Kurach et al. 2020).

    The agent controls the player of the left team who is nearest to the ball. The four images, of bytes 0
    and 255, show where the own team, the other team, the ball, and the controlled player are. The reward is
    1 for a goal and −1 for one of the other team. An episode of an academy scenario ends with a goal, the
    ball out of play, or its loss; then it is *terminated*.

    Args:
        scenario: its name: ``academy_run_to_score``.
        max_episode_steps: steps after which an episode is *truncated*, at least 2; None: the scenario's.
        frame_stack: see :class:`~sqn_rl.parts.env.base.BatchedEnv`; above 1, speeds can be seen.
        threads: as of :class:`~sqn_rl.parts.env.envpool.EnvPoolEnv`.
        num_envs: N, the number of matches.
        seed: see :class:`~sqn_rl.parts.env.base.BatchedEnv`.
        training: has no effect.

    Raises:
        SettingError: EnvPool is not installed, there is no such scenario, or a number is out of its range.
    """

    @typed
    def __init__(
        self,
        *,
        scenario: str,
        max_episode_steps: Limit | None,
        frame_stack: int,
        threads: int,
        num_envs: int,
        seed: int,
        training: bool = True,
    ) -> None:
        require_one_of(_scenarios(scenario), "scenario", scenario)
        limit = max_episode_steps
        super().__init__(
            id=f"{PREFIX}{scenario}{SUFFIX}",
            chosen=("scenario", scenario),
            kwargs={} if limit is None else {"max_episode_steps": limit - 1},
            keys=(),
            frame_stack=frame_stack,
            clip_reward=False,
            threads=threads,
            num_envs=num_envs,
            seed=seed,
            training=training,
        )
        self.played_bytes = num_envs * MATCH_BYTES
        self.max_steps = self.max_steps and self.max_steps + 1  # the engine counts from the second step

    @property
    def action_names(self) -> list[str]:
        """The names of the actions."""
        return list(ACTIONS)

    def show(self) -> None:
        """Prepare nothing: EnvPool does not render matches, so the screen is drawn from the observation."""

    def screen(self) -> np.ndarray:
        """The first match from above, ``[360, 480, 3]`` uint8."""
        minimap = self._current.observation[0].numpy().reshape(-1, *self.observation_shape[-3:])[-1]
        field = np.full((*minimap.shape[1:], 3), GRASS, np.uint8)
        height, width = field.shape[:2]
        field[:, width // 2 - 1 : width // 2 + 1] = LINE
        field[height // 2 - 4 : height // 2 + 4, [0, -1]] = GOAL
        field = field.repeat(CELL, 0).repeat(CELL, 1)
        for channel, around in MARKS:
            for y, x in np.argwhere(minimap[channel]) * CELL + CELL // 2:
                rows = slice(max(0, y - around), y + around + 1)
                field[rows, max(0, x - around) : x + around + 1] = COLOURS[channel]
        return field


def _scenarios(scenario: str) -> list[str]:
    ids = package("scenario", scenario).list_all_envs()
    return sorted(id.removeprefix(PREFIX).removesuffix(SUFFIX) for id in ids if id.startswith(PREFIX))
