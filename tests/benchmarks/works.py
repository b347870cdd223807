"""What is raced over: the works, who does them, and what is wanted."""

from dataclasses import dataclass
from statistics import median

from race import Contender

CARTPOLE = "env=cartpole num_envs=1 update_ratio=1 batch_size=128 warmup_steps=128 hidden=[120,84]"
RAM = "env=atari_ram num_envs=8 update_ratio=0.25 batch_size=64 warmup_steps=128 hidden=[400,300]"
MINATAR = "env=minatar num_envs=8 update_ratio=0.25 batch_size=32 warmup_steps=128"
PIXELS = "env=atari num_envs=8 update_ratio=0.25 batch_size=32 warmup_steps=128 replay.capacity=10000"


def ours(work: str, *more: str, recipe: str = "sqn", compiled: bool = True) -> Contender:
    """A recipe of ours at one of the works."""
    return Contender(["ours", recipe, *work.split(), f"compile={'always' if compiled else 'never'}", *more])


def filled(work: str, capacity: int) -> Contender:
    """With a replay that is full from the beginning."""
    return ours(work, "replay._target_=filled_replay.FilledReplay", f"replay.capacity={capacity}")


def cleanrl(folder: str | None, script: str) -> dict[str, Contender]:
    """CleanRL's script, if there is a checkout of it."""
    return {"CleanRL DQN": Contender(["cleanrl", folder, script])} if folder else {}


@dataclass(frozen=True)
class Race:
    """Contenders that take turns."""

    leg: int
    """Environment steps, a multiple of each contender's number of environments."""
    threads: int
    contenders: dict[str, Contender]


def races(checkout: str | None) -> dict[str, Race]:
    """All of them.

    Args:
        checkout: of CleanRL.
    """
    return {
        "cartpole": Race(1000, 1, {
            "sqn": ours(CARTPOLE),
            "sqn, eager": ours(CARTPOLE, compiled=False),
            "sqn, 8 envs": ours(CARTPOLE, "num_envs=8"),
            "sqn_per": ours(CARTPOLE, recipe="sqn_per"),
            "hand-written SQN": Contender(["hand_written", "sqn"]),
            "SB3 DQN": Contender(["sb3", "cartpole"]),
            **cleanrl(checkout, "dqn"),
        }),
        "ram": Race(2000, 2, {
            "sqn": ours(RAM, "threads=1"),
            "sqn, eager": ours(RAM, "threads=1", compiled=False),
            "SB3 DQN": Contender(["sb3", "pong_ram"]),
        }),
        "pixels": Race(200, 2, {
            "sqn": ours(PIXELS),
            "sqn, eager": ours(PIXELS, compiled=False),
            "sqn, twin_shared": ours(PIXELS, "q_net=twin_shared"),
            "sqn, twin_shared, eager": ours(PIXELS, "q_net=twin_shared", compiled=False),
            "SB3 DQN": Contender(["sb3", "pong_pixels"]),
            **cleanrl(checkout, "dqn_atari"),
        }),
        "minatar": Race(2000, 1, {
            "sqn": ours(MINATAR),
            "sqn, eager": ours(MINATAR, compiled=False),
            "hand-written DQN": Contender(["hand_written", "dqn"]),
            "SB3 DQN": Contender(["sb3", "minatar"]),
        }),
        "precision": Race(200, 2, {
            "bf16": ours(PIXELS, "precision=bf16"),
            "fp32": ours(PIXELS, "precision=fp32"),
            "twin_shared, bf16": ours(PIXELS, "q_net=twin_shared", "precision=bf16"),
            "twin_shared, fp32": ours(PIXELS, "q_net=twin_shared", "precision=fp32"),
            "SB3 DQN": Contender(["sb3", "pong_pixels"]),
        }),
        "precision, RAM": Race(1000, 2, {
            "bf16": ours(RAM, "threads=1", "precision=bf16"),
            "fp32": ours(RAM, "threads=1", "precision=fp32"),
        }),
        "collecting": Race(4000, 2, {
            "env=atari": Contender(["play", "env=atari", "num_envs=16"]),
            "ale-py AtariVectorEnv": Contender(["play", "raw_pixels"]),
            "env=atari_ram": Contender(["play", "env=atari_ram", "num_envs=16"]),
            "ale-py AtariEnv": Contender(["play", "raw_ram"]),
            "two of AtariEnv": Contender(["play", "raw_ram_twice"]),
        }),
        "replay": Race(1000, 2, {
            "RAM, 1,000,000": filled(RAM, 1_000_000),
            "RAM, 10,000": filled(RAM, 10_000),
        }),
        "memory": Race(200, 2, {
            "pixels, 1,000,000": filled(PIXELS, 1_000_000),
            "pixels, 10,000": filled(PIXELS, 10_000),
        }),
    }  # fmt: skip


KINDS = ("AMX", "no AMX")
"""Of processors."""


@dataclass(frozen=True)
class Row:
    """How many times as fast as ``peer`` ``name`` is to be."""

    work: str
    race: str
    name: str
    peer: str
    wanted: float | tuple[float, float] | None
    """None: it is of interest, no more. Two: on each of :data:`KINDS`, and it is measured on each."""

    def cells(self, contenders: dict[str, Contender] | None, kind: str = "") -> list[str]:
        """What the table says of it, on one kind of processor, or wherever it was measured last."""
        least = self.wanted[KINDS.index(kind)] if isinstance(self.wanted, tuple) else self.wanted
        work, wanted = f"{self.work}{kind and f', {kind}'}", f"≥ {least:.2f}" if least else ""
        if contenders is None or self.peer not in contenders:
            why = "not measured here" if contenders is None else "not at hand"
            return [work, self.name, "", self.peer, why, "", wanted, ""]
        one, other = contenders[self.name], contenders[self.peer]
        ratios = sorted(a / b for a, b in zip(one.speeds, other.speeds, strict=True))
        spread = f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"
        met = "" if least is None else "yes" if median(ratios) >= least else "**no**"
        speeds = [f"{one.speed:,.0f}", f"{other.speed:,.0f}"]
        return [work, self.name, speeds[0], self.peer, speeds[1], spread, wanted, met]


DENSE = "CartPole, 1 env, an update a step, batch 128, MLP 120-84, one thread"
PONG = "Pong RAM, 8 envs, update ratio ¼, batch 64, MLP 400-300, two cores: of ours one learns, and both play"
SMALL = "MinAtar Breakout, 8 envs, update ratio ¼, batch 32, a 3 × 3 convolution of 16, 128 units, one thread"
SCREEN = "Pong pixels, 8 envs, update ratio ¼, batch 32, Nature CNN, two threads"
ROWS = [
    Row(DENSE, "cartpole", "sqn", "SB3 DQN", 2.0),
    Row(DENSE, "cartpole", "sqn", "CleanRL DQN", 1.1),
    Row(DENSE, "cartpole", "sqn", "hand-written SQN", 1.0),
    Row("the same, compiled or not", "cartpole", "sqn", "sqn, eager", None),
    Row("the same, not compiled", "cartpole", "sqn, eager", "hand-written SQN", None),
    Row("the same, 8 envs or 1", "cartpole", "sqn, 8 envs", "sqn", 1.3),
    Row("the same, prioritized or uniform", "cartpole", "sqn_per", "sqn", 0.85),
    Row(PONG, "ram", "sqn", "SB3 DQN", (2.0, 1.6)),
    Row("the same, compiled or not", "ram", "sqn", "sqn, eager", None),
    Row(SMALL, "minatar", "sqn", "hand-written DQN", 0.75),
    Row(SMALL, "minatar", "sqn", "SB3 DQN", 2.0),
    Row("the same, compiled or not", "minatar", "sqn", "sqn, eager", None),
    Row(SCREEN, "pixels", "sqn", "SB3 DQN", (1.4, 1.0)),
    Row(SCREEN, "pixels", "sqn", "CleanRL DQN", None),
    Row("the same, compiled or not", "pixels", "sqn", "sqn, eager", None),
    Row(f"{SCREEN}, `q_net=twin_shared`", "pixels", "sqn, twin_shared", "SB3 DQN", (2.2, 1.6)),
    Row("the same", "pixels", "sqn, twin_shared", "CleanRL DQN", None),
    Row("the same, compiled or not", "pixels", "sqn, twin_shared", "sqn, twin_shared, eager", None),
    Row("Pong pixels, `precision=bf16` or `fp32`", "precision", "bf16", "fp32", None),
    Row("the same, `precision=bf16`", "precision", "bf16", "SB3 DQN", None),
    Row("the same, `q_net=twin_shared`", "precision", "twin_shared, bf16", "twin_shared, fp32", None),
    Row("the same, `q_net=twin_shared`", "precision", "twin_shared, bf16", "SB3 DQN", None),
    Row("Pong RAM, `precision=bf16` or `fp32`", "precision, RAM", "bf16", "fp32", None),
    Row("collecting alone, pixels, 16 envs", "collecting", "env=atari", "ale-py AtariVectorEnv", 0.9),
    Row("collecting alone, RAM, both cores or one", "collecting", "env=atari_ram", "ale-py AtariEnv", 1.6),
    Row(
        "two processes that know nothing of each other",
        "collecting",
        "two of AtariEnv",
        "ale-py AtariEnv",
        None,
    ),
    Row("Pong RAM, full replay, 1,000,000 or 10,000", "replay", "RAM, 1,000,000", "RAM, 10,000", 0.9),
    Row("Pong pixels, the same", "memory", "pixels, 1,000,000", "pixels, 10,000", 0.9),
]
"""The table."""
