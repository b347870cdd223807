"""What was measured, and on what."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from sqn_rl.parts.machine import has_amx

PACKAGES = ("torch", "torchrl", "gymnasium", "ale-py", "numpy", "stable-baselines3")


def revision() -> str:
    """The checkout's, with ``+changes`` if it has any."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--dirty=+changes"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()


def machine() -> str:
    """What this ran on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    amx = "AMX" if has_amx() else "no AMX"
    kind = f"{torch.backends.cpu.get_cpu_capability()}, {amx}, {os.cpu_count()} cores"
    return f"{name}, {kind}; Python {platform.python_version()}, {packages}"
