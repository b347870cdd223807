"""Soft Q-Networks and their variants as small tested parts, wired by recipe files, on TorchRL.

The names below are the public API. They are loaded on first use, so that ``import sqn_rl`` costs nothing.
"""

from typing import Any

import lazy_loader

from sqn_rl.parts.lazy_dynamo import without_dynamo

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    with without_dynamo():
        return _load(name)
