"""What `compile=auto` and `precision=auto` choose, and the reason that they report."""

import pytest

from sqn_rl import SettingError, compose
from sqn_rl.parts import machine
from sqn_rl.recipe.auto import bfloat16, compiling

LONG = ["warmup_steps=1000", "update_ratio=0.5", "steps=41000"]  # 20,000 updates


@pytest.mark.parametrize(
    ("overrides", "chosen", "why"),
    [
        ([], True, "20,000 updates; it pays from 20,000 on"),
        (["steps=40998"], False, "19,999 updates; it pays from 20,000 on"),
        (["steps=500"], False, "0 updates; it pays from 20,000 on"),
        (["steps=500", "compile=always"], True, "as asked"),
        (["compile=never"], False, "as asked"),
    ],
)
def test_compiling_is_chosen_by_the_setting_and_the_number_of_updates(
    overrides: list[str], chosen: bool, why: str
) -> None:
    assert compiling(compose("sqn", *LONG, *overrides).run) == (chosen, why)


def test_without_a_compiler_auto_does_not_compile_and_always_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert compiling(compose("sqn", *LONG).run) == (False, "no C++ compiler, no-such-compiler")
    with pytest.raises(SettingError, match="a C\\+\\+ compiler, no-such-compiler, which is not there"):
        compiling(compose("sqn", *LONG, "compile=always").run)


def test_on_cuda_auto_compiles_any_run_and_does_not_choose_bfloat16() -> None:
    run = compose("sqn", *LONG, "steps=500", "device=cuda").run
    assert compiling(run) == (True, "updates are recorded as CUDA graphs, which takes no time")
    assert compiling(compose("sqn", "device=cuda", "compile=never").run) == (False, "as asked")
    assert bfloat16(run, (4, 84, 84), [512]) == (False, "on a GPU bf16 was faster for large batches only")


def test_bfloat16_of_images_depends_on_amx_and_their_size() -> None:
    automatic, asked = compose("sqn").run, compose("sqn", "precision=bf16").run
    assert "AMX" in bfloat16(automatic, (4, 84, 84), [512]).why
    assert bfloat16(automatic, (4, 10, 10), [512]) == (False, "images are small, for which bf16 was slower")
    assert bfloat16(asked, (4,), []) == (True, "as asked")


@pytest.mark.parametrize("amx", [False, True])
def test_bfloat16_of_vectors_needs_amx_compiling_and_large_networks(
    monkeypatch: pytest.MonkeyPatch, amx: bool
) -> None:
    monkeypatch.setattr(machine, "has_amx", lambda: amx)
    run, eager = (compose("sqn", "batch_size=64", f"compile={each}").run for each in ("always", "never"))
    small = (False, "networks are small, for which bf16 was slower")
    assert bfloat16(run, (128,), [400, 300]).chosen == amx
    assert bfloat16(eager, (128,), [400, 300]) == (False, "not compiled, for which bf16 was slower")
    assert bfloat16(run, (4,), [304, 304]) == small  # 5.99 and 6.01 million multiplications of a batch
    assert bfloat16(run, (4,), [306, 303]).chosen == amx
    for unknown in ([], None, 512, ["wide"]):
        assert bfloat16(run, (128,), unknown) == small
