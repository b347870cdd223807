"""Make environments of Gymnasium by id or function, with Gymnasium's wrappers; close environments."""

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from sqn_rl.errors import SettingError, explain, for_atari_id, nearest, require, require_one_of, to_install
from sqn_rl.parts.env.observations import layout_of

if TYPE_CHECKING:
    from sqn_rl.parts.env.base import BatchedEnv

WRAPPABLE = (
    *("ClipReward", "DelayObservation", "DiscretizeAction", "DiscretizeObservation", "FilterObservation"),
    *("FlattenObservation", "GrayscaleObservation", "MaxAndSkipObservation", "RepeatAction"),
    *("RescaleObservation", "ReshapeObservation", "ResizeObservation", "StickyAction"),
    *("TimeAwareObservation", "TimeLimit"),
)
"""Gymnasium's wrappers that take plain values, write no files, and have no state beyond an episode."""

OF_IMAGES = ("GrayscaleObservation", "ResizeObservation")
"""Wrappers that need images with their channels last; otherwise they would take rows for channels."""

EXTRAS = {"box2d": "envs", "opencv": "images", "pygame": "video"}
"""Packages that environments need, and our extras that install them."""

Wrappers = Sequence[Mapping[str, Mapping[str, Any]]]


def given(id: object) -> Sequence[gymnasium.Env]:
    """The environments that were given, not an id or a function; empty if there are none."""
    if isinstance(id, gymnasium.vector.VectorEnv):
        hint = "gymnasium.make_vec(…, vectorization_mode='sync') makes the first"
        expected = f"a SyncVectorEnv, or a function that makes one environment; {hint}"
        require(isinstance(id, gymnasium.vector.SyncVectorEnv), "id", id, expected)
        return id.envs
    return [id] if isinstance(id, gymnasium.Env) else []


def make(
    id: str | Callable[..., gymnasium.Env], kwargs: Mapping[str, Any], wrappers: Wrappers
) -> gymnasium.Env:
    """Make an environment and wrap it."""
    require(isinstance(kwargs, Mapping), "kwargs", kwargs, "a mapping of names to values")
    if not callable(id):
        return wrapped(_registered(id, kwargs), wrappers)
    try:
        env = id(**kwargs)
    except (Exception, SystemExit) as error:
        raise SettingError("id", id, f"a function that makes an environment ({explain(error)})") from error
    require(
        isinstance(env, gymnasium.Env), "id", id, f"a function that makes a gymnasium.Env; it made {env!r}"
    )
    return wrapped(env, wrappers)


def wrapped(env: gymnasium.Env, wrappers: Wrappers) -> gymnasium.Env:
    """Put Gymnasium's wrappers around an environment, or raise a :class:`SettingError`.

    Images with their channels first have them last from the first of :data:`OF_IMAGES` on.
    """
    form = "a list of wrappers with their arguments, such as [{TimeLimit: {max_episode_steps: 200}}]"
    require(isinstance(wrappers, Sequence) and not isinstance(wrappers, str), "wrappers", wrappers, form)
    for wrapper in wrappers:
        is_mapping = isinstance(wrapper, Mapping)
        is_well_formed = is_mapping and all(isinstance(each, Mapping) for each in wrapper.values())
        require(is_well_formed, "wrappers", wrapper, form)
        for name, arguments in wrapper.items():
            require_one_of(WRAPPABLE, "wrappers", name)
            layout = layout_of(env.observation_space)
            if name in OF_IMAGES and layout and layout.channels == "first" and len(layout.outside) == 3:
                env = ChannelsLast(env)
            try:
                env = getattr(gymnasium.wrappers, name)(env, **wrapper_arguments(arguments))
            except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
                raise SettingError("wrappers", dict(wrapper), missing(f"what {name} needs", error)) from error
            except Exception as error:
                expected = f"arguments that {name} takes around {env} ({explain(error)})"
                raise SettingError("wrappers", dict(wrapper), expected) from error
    return env


class ChannelsLast(gymnasium.ObservationWrapper):
    """Images ``[C, H, W]`` as ``[H, W, C]``, as Gymnasium's wrappers take them."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Box)
        channels, height, width = env.observation_space.shape
        self.observation_space = spaces.Box(0, 255, (height, width, channels), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """``[C, H, W]`` → ``[H, W, C]``."""
        return np.moveaxis(observation, 0, -1).copy()


def wrapper_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A wrapper's arguments as it takes them: YAML has lists, and shapes are tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}


def _registered(id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """Make an environment, or raise a :class:`SettingError` with a hint for id, kwargs or installation."""
    require(isinstance(id, str), "id", id, "the id of an environment, such as CartPole-v1")
    module, _, name = id.rpartition(":")
    imported = not module or module in sys.modules
    require(imported, "id", id, f"a module that was imported: if you trust `{module}`, by --trust {module}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # old versions, and old libraries on import
            return gymnasium.make(name, disable_env_checker=True, **kwargs)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise SettingError("id", id, missing("its dependencies", error)) from error
    except (Exception, SystemExit) as error:
        if isinstance(error, gymnasium.error.Error) and name not in gymnasium.registry:
            other = f", or that a module registers: --trust MODULE{nearest(name, gymnasium.registry)}"
            instead = f"; {atari}" if (atari := for_atari_id(id)) else other
            expected = f"an id that Gymnasium knows{instead} ({error})"
            raise SettingError("id", id, expected) from error
        may_be_kwargs = kwargs and isinstance(error, ValueError | LookupError | AssertionError)
        if isinstance(error, TypeError) or may_be_kwargs:
            raise SettingError(
                "kwargs", dict(kwargs), f"what {id} takes{_lacking(error)} ({error!r})"
            ) from error
        raise SettingError("id", id, f"an environment that can be opened ({explain(error)})") from error


def _lacking(error: BaseException) -> str:
    """The arguments that a constructor lacks, as they are set in a recipe; empty if it lacks none."""
    lacking = re.search(r"missing \d+ required .*?arguments?: (.*?) was raised", str(error))
    names = re.findall(r"'(\w+)'", lacking[1]) if lacking else []
    return f": add {' '.join(f'env.kwargs.{name}=VALUE' for name in names)}" if names else ""


def missing(what: str, error: ImportError | gymnasium.error.Error) -> str:
    """An error message's "expected": the extra to install for the package that ``error`` names."""
    extras = (extra for package, extra in EXTRAS.items() if package in str(error).lower())
    command = ", ".join(to_install(extra) for extra in extras)
    return f"{what} to be installed{command and ': '}{command} ({error})"


def close(env: "BatchedEnv") -> None:
    """Close ``env``, which may be closed already; an error while closing becomes a warning."""
    try:
        env.close(raise_if_closed=False)
    except (Exception, SystemExit) as error:
        warnings.warn(f"{getattr(env, 'name', env)}, when it was closed: {explain(error)}", stacklevel=1)


@contextmanager
def closing_env(env: "BatchedEnv") -> Iterator["BatchedEnv"]:
    """A context manager that closes ``env`` at the end, by :func:`close`."""
    try:
        yield env
    finally:
        close(env)
