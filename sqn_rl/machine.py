"""What the machine at hand offers. Every choice that depends on it asks here, and nowhere else."""

import os
import shutil


def processors() -> int:
    """How many processors this process may use, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 in hardware (Intel's AMX-BF16)."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def cxx() -> str:
    """The C++ compiler that PyTorch's inductor calls on a CPU."""
    return os.environ.get("CXX", "g++")


def has_cxx() -> bool:
    """Whether that compiler is installed."""
    return shutil.which(cxx()) is not None
