"""Free memory: the machine's, and that of every control group of this process."""

from pathlib import Path

import pytest

from sqn_rl.parts import machine as memory

GB = 10**9


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 8 GB free."""
    for name in ("CGROUPS", "OWN", "MACHINE"):
        monkeypatch.setattr(memory, name, tmp_path / name)
    (tmp_path / "MACHINE").write_text(f"MemTotal: 9000000 kB\nMemAvailable:   {8 * GB // 1024} kB\n")
    (tmp_path / "CGROUPS").mkdir()
    return tmp_path


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("memory_", "memory.")).write_text(f"{text}\n")


def test_available_bytes_are_those_of_meminfo_without_control_groups(system: Path) -> None:
    assert memory.available_bytes() == 8 * GB // 1024 * 1024


def test_available_bytes_are_unknown_if_no_file_reports_memory(system: Path) -> None:
    (system / "MACHINE").unlink()
    assert memory.available_bytes() is None


@pytest.mark.parametrize("tight", ["", "job.slice", "job.slice/step"])
def test_the_tightest_control_group_limits_the_available_bytes(system: Path, tight: str) -> None:
    (system / "OWN").write_text("0::/job.slice/step\n")
    for path in ("", "job.slice", "job.slice/step"):
        group(system / "CGROUPS" / path, memory_max="max", memory_current=GB)
    stat = f"anon {GB}\ninactive_file {GB // 2}\nfile {3 * GB}"
    group(system / "CGROUPS" / tight, memory_max=3 * GB, memory_current=2 * GB, memory_stat=stat)
    assert memory.available_bytes() == 3 * GB - 2 * GB + GB // 2


def test_the_memory_controller_of_control_groups_version_1_is_read(system: Path) -> None:
    (system / "OWN").write_text("5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/x\n")
    files = {"memory_limit_in_bytes": 5 * GB, "memory_usage_in_bytes": 4 * GB}
    group(system / "CGROUPS" / "memory", **files, memory_stat=f"inactive_file 7\ntotal_inactive_file {GB}")
    assert memory.available_bytes() == 2 * GB


def test_the_root_control_group_counts_if_the_path_is_outside_the_container(system: Path) -> None:
    """In a container the path is the host's and does not exist; the root group is the container's."""
    (system / "OWN").write_text("0::/../../system.slice\n")
    group(system / "CGROUPS", memory_max=2 * GB, memory_current=GB)
    assert memory.available_bytes() == GB


def test_free_memory_of_a_gpu_includes_what_pytorch_has_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"mem_get_info": (3 * GB, 9 * GB), "memory_reserved": 2 * GB, "memory_allocated": GB}
    for name, number in numbers.items():
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device, number=number: number)
    assert memory.available_bytes("cuda:0") == 4 * GB
