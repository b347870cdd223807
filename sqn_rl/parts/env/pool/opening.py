"""Describe and open the environments of EnvPool, which is imported only when it is needed."""

import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from sqn_rl.errors import SettingError, explain, nearest, require, to_install

FOREVER = 2**31 - 1
"""EnvPool's time limit of episodes that have none."""

OURS = {"num_envs", "batch_size", "num_threads", "seed", "env_seed", "render_mode"}
"""EnvPool's settings that follow from the fields of the part."""


def package(field: str, value: object) -> ModuleType:
    """EnvPool, or a :class:`SettingError` that says how to install it."""
    try:
        import envpool
    except (ImportError, OSError) as error:  # OSError: a package of its assets is missing
        expected = f"EnvPool to be installed: {to_install('envpool')} ({explain(error)})"
        raise SettingError(field, value, expected) from error
    return envpool


def spec_of(id: str, kwargs: Mapping[str, Any], field: str, value: object) -> Any:
    """EnvPool's description of an environment: its spaces, and all its settings in ``config``.

    Args:
        id: the id of the environment.
        kwargs: EnvPool's own settings of the environment.
        field: the setting that chose it, for messages.
        value: the value of that setting.

    Raises:
        SettingError: EnvPool, the id, or what it needs, is missing; or ``kwargs`` do not fit.
    """
    envpool = package(field, value)
    known = envpool.list_all_envs()
    known_id = isinstance(id, str) and id in known
    require(known_id, field, value, f"an id of EnvPool, which has {len(known):,}{nearest(id, known)}")
    ours = sorted(OURS & kwargs.keys())
    require(not ours, "kwargs", dict(kwargs), f"no setting that is made here: {', '.join(ours)}")
    try:
        return envpool.make_spec(id, **kwargs)
    except ImportError as error:
        raise SettingError(field, value, f"what {id} needs to be installed ({error})") from error
    except (Exception, SystemExit) as error:
        if kwargs:
            raise SettingError("kwargs", dict(kwargs), f"what {id} takes ({explain(error)})") from error
        raise SettingError(field, value, f"an environment that can be opened ({explain(error)})") from error


def opened(id: str, **settings: Any) -> Any:
    """A pool of environments, which :func:`spec_of` has accepted."""
    pool = package("id", id).make_gymnasium(id, **settings)
    spaces_of(pool)  # the pool caches them, without warnings later
    return pool


def spaces_of(described: Any) -> tuple[Any, Any]:
    """The observation and action space of one environment, from a description or a pool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # bounds in double precision
        return described.observation_space, described.action_space
