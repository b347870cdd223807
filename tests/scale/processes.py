"""Runs with actors in processes of Ray: the digests of their results, and the ids of their processes."""

from hashlib import sha256
from pathlib import Path


def digests(run: Path, steps: int) -> dict[str, str]:
    """Hashes of everything saved at the end of a run (weights, moments, replay), and of its episodes."""
    files = sorted((run / "checkpoints" / f"{steps:010d}").glob("*.safetensors"))
    files += [run / "episodes.jsonl", *sorted((run / "checkpoints" / "replay").iterdir())]
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}


def actors_of(pid: int, kind: str = "ActorProcess") -> list[int]:
    """The processes of actors, or of another kind, among the descendants of a process."""
    parents, names = dict[int, int](), dict[int, str]()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                names[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(stat[1])

    def descends(each: int) -> bool:
        while each in parents and each != pid:
            each = parents[each]
        return each == pid

    return [each for each, name in names.items() if name.startswith(f"ray::{kind}") and descends(each)]
