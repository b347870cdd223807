"""How much memory this process may still use."""

from pathlib import Path

CGROUPS = (  # limit, use; version 2, then version 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes() -> int | None:
    """The least of what the machine and the cgroup have left, in bytes; None where neither tells."""
    left = [_machine(), *(_cgroup(*paths) for paths in CGROUPS)]
    return min((each for each in left if each is not None), default=None)


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _cgroup(limit: str, use: str) -> int | None:
    try:
        return int(Path(limit).read_text()) - int(Path(use).read_text())
    except (OSError, ValueError):  # no such cgroup, or the limit is `max`
        return None
