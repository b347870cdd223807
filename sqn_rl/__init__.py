"""Soft Q-Networks and their variants as small tested parts, wired by recipe files, on TorchRL.

The names below are the public API. They are loaded on first use, so that ``import sqn_rl`` costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
