"""Resources of this machine. Everything that depends on them uses this module."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CGROUPS, OWN, MACHINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")

FILES = {  # by controller in /proc/self/cgroup: folder, file of the limit, of the use, reclaimable cache
    "": ("", "memory.max", "memory.current", "inactive_file "),  # version 2
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "),
}


def processors() -> int:
    """The number of processors that this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def processor_name() -> str:
    """The model of the processor; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 in hardware (Intel's AMX-BF16)."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def has_device(device: str) -> bool:
    """Whether PyTorch can use this device here."""
    import torch

    try:
        torch.zeros((), device=device)
    except Exception:  # every kind of device has its own
        return False
    return True


def cxx() -> str:
    """The C++ compiler that PyTorch's inductor calls on a CPU."""
    return os.environ.get("CXX", "g++")


def has_cxx() -> bool:
    """Whether the compiler :func:`cxx` is installed."""
    return shutil.which(cxx()) is not None


def available_bytes(device: "torch.device | str" = "cpu") -> int | None:
    """Free memory in bytes, of a GPU or of the machine; None if unknown.

    Of the machine it is the least that it and its control groups report.
    """
    import torch

    if (device := torch.device(device)).type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    left = [_number(MACHINE, "MemAvailable:"), *_cgroup_bytes()]
    return min((each for each in left if each is not None), default=None)


def _cgroup_bytes() -> Iterator[int]:
    """Free memory of this process's control group, and of each of its parents."""
    try:
        own = [line.split(":", 2) for line in OWN.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return
    for _, controllers, path in own:
        for controller in {"", "memory"} & {*controllers.split(",")}:
            folder, limit, use, cache = FILES[controller]
            root = CGROUPS / folder
            lowest = root / path.lstrip("/")
            for group in (lowest, *lowest.parents):
                most, used = _number(group / limit), _number(group / use)
                if most is not None and used is not None:
                    yield most - used + (_number(group / "memory.stat", cache) or 0)
                if group == root:
                    break


def _number(path: Path, name: str = "") -> int | None:
    """The first number in a file, or the number after ``name``, in bytes; None if there is none."""
    try:
        line = next(line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(name))
        number, *unit = line.removeprefix(name).split()
        return int(number) * (1024 if unit == ["kB"] else 1)
    except (OSError, ValueError, StopIteration):  # no such file, or the limit is `max`
        return None
