"""What the arithmetic of an update costs by itself: products and convolutions, and nothing around them.

    python tests/benchmarks/floors.py
    python tests/benchmarks/floors.py --threads 2

No toolkit can be faster that calls the same kernels. An update of SQN asks its networks five times (Q_1 at
s', twice Q̄ at s', twice Q at s) and differentiates two of them; one of DQN asks twice and differentiates one.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import conv2d

Work = Callable[[], object]
"""Calls one kernel."""
CONVOLUTIONS = ((4, 32, 8, 4, 84), (32, 64, 4, 2, 20), (64, 64, 3, 1, 9))
"""Channels in and out, width of the filter, stride, width of the image."""


def dense(members: int, batch: int, widths: list[int], *, first: bool) -> Iterator[tuple[str, Work]]:
    """Forward and backward of fully connected layers; the first does not differentiate by its input."""
    for number, (i, o) in enumerate(pairwise(widths)):
        x, w, g = (torch.randn(members, *shape) for shape in ((batch, i), (i, o), (batch, o)))
        if members == 1:
            x, w, g = x[0], w[0], g[0]
        yield "forward", lambda x=x, w=w: x @ w
        yield "backward", lambda x=x, g=g: x.transpose(-1, -2) @ g
        if number or not first:
            yield "backward", lambda w=w, g=g: g @ w.transpose(-1, -2)


def nature(batch: int, layout: torch.memory_format, dtype: torch.dtype) -> Iterator[tuple[str, Work]]:
    """Forward and backward of one Nature network."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype, memory_format=layout)

    for channels, filters, width, stride, side in CONVOLUTIONS:
        x, w = random(batch, channels, side, side), random(filters, channels, width, width)
        g = torch.randn_like(conv2d(x, w, None, stride))
        wanted = [channels != CONVOLUTIONS[0][0], True, True]
        rest = [filters], [stride] * 2, [0, 0], [1, 1], False, [0, 0], 1, wanted
        yield "forward", lambda x=x, w=w, s=stride: conv2d(x, w, None, s)
        yield "backward", lambda g=g, x=x, w=w, rest=rest: torch.ops.aten.convolution_backward(g, x, w, *rest)
    yield from dense(1, batch, [3136, 512, 6], first=False)


def seconds(works: list[tuple[str, Work]], rounds: int) -> dict[str, float]:
    """Of all forward kernels once, and of all backward ones: sums of medians; kernels take turns."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for (_, work), own in zip(works, times, strict=True):
            started = time.perf_counter()
            work()
            own.append(time.perf_counter() - started)
    sums = {"forward": 0.0, "backward": 0.0}
    for (name, _), own in zip(works, times, strict=True):
        sums[name] += median(own[1:])
    return sums


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    last, usual = torch.channels_last, torch.contiguous_format
    networks: dict[str, tuple[int, list[tuple[str, Work]]]] = {
        "CartPole, twins": (2, [*dense(2, 128, [4, 120, 84, 2], first=True)]),
        "CartPole, one": (1, [*dense(1, 128, [4, 120, 84, 2], first=True)]),
        "Pong RAM, twins": (2, [*dense(2, 64, [128, 400, 300, 6], first=True)]),
        "Pong RAM, one": (1, [*dense(1, 64, [128, 400, 300, 6], first=True)]),
        "Nature, channels last": (1, [*nature(32, last, torch.float32)]),
        "Nature, channels first": (1, [*nature(32, usual, torch.float32)]),
        "Nature, channels last, bfloat16": (1, [*nature(32, last, torch.bfloat16)]),
    }
    print("| networks | forward, ms | backward, ms | SQN's update, ms | DQN's update, ms |")
    print("| --- | --- | --- | --- | --- |")
    with torch.no_grad():
        for name, (members, works) in networks.items():
            time_of = seconds(works, arguments.rounds)
            forward, backward = (1e3 * time_of[each] for each in ("forward", "backward"))
            sqn = (3 if members == 2 else 5) * forward + (1 if members == 2 else 2) * backward
            dqn = f"{2 * forward + backward:.2f}" if members == 1 else ""
            own = f"{sqn:.2f}" if members == 2 or name.startswith("Nature") else ""
            print(f"| {name} | {forward:.2f} | {backward:.2f} | {own} | {dqn} |")


if __name__ == "__main__":
    main()
