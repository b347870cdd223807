"""The modes of PyTorch that a run sets are restored afterwards."""

import threading
from pathlib import Path

import pytest
import torch

from sqn_rl import compose
from sqn_rl.training.torch_modes import default_float32, flushed_denormals


@pytest.mark.parametrize("before", [True, False])
def test_flushing_of_denormals_is_restored_afterwards(before: bool) -> None:
    def flushed() -> bool:
        return bool(torch.tensor([1e-38]).div(100) == 0)

    torch.set_flush_denormal(before)
    try:
        with flushed_denormals():
            with flushed_denormals():
                pass
            assert flushed()
        assert flushed() == before
    finally:
        torch.set_flush_denormal(False)


def test_runs_in_threads_do_not_change_each_others_dtype() -> None:
    """The first run begins first, and ends while the second is still running."""
    first_is_in, second_is_in, seen = threading.Event(), threading.Event(), list[torch.dtype]()

    @default_float32()
    def first() -> None:
        first_is_in.set()
        second_is_in.wait()

    @default_float32()
    def second() -> None:
        second_is_in.set()
        threads[0].join()
        seen.append(torch.zeros(1).dtype)

    threads = [threading.Thread(target=target) for target in (first, second)]
    torch.set_default_dtype(torch.float64)
    try:
        threads[0].start()
        first_is_in.wait()
        threads[1].start()
        threads[1].join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_run_restores_the_number_of_threads(tmp_path: Path) -> None:
    tiny = ["steps=16", "warmup_steps=8", "hidden=[8]", "batch_size=4", "compile=never", "eval_episodes=1"]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compose("sqn", *tiny, "threads=1", f"out={tmp_path / 'run'}").train()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
