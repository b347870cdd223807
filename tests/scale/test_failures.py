"""Errors in settings of actors are reported with a remedy."""

import re
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from sqn_rl import RecipeError, compose
from sqn_rl.errors import to_install
from sqn_rl.parts.collect.base import CollectingWorker
from sqn_rl.parts.collect.ray_processes import ActorProcess

TINY = ["env=cartpole", "hidden=[8]", "num_envs=2", "steps=100", "collect.actors=1", "collect.rows=5"]


def test_without_ray_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RecipeError, match=re.escape(f"expected the extra `ray`: {to_install('ray')}")):
        compose("sqn", *TINY, "collect=ray").preflight()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1", "nowhere.invalid:6379", "127.0.0.1:99999"])
def test_an_unreachable_ray_address_is_refused_within_30_seconds(address: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    began = time.monotonic()
    overrides = [*TINY, "collect=ray", f"collect.address={address}", f"out={tmp_path / 'run'}"]
    with pytest.raises(
        RecipeError, match=r"collect.address=.*: expected auto, or the HOST:PORT of a running Ray"
    ):
        compose("sqn", *overrides).train()
    assert time.monotonic() - began < 30
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_of_another_program_is_refused_as_ray_address(
    answer: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("sqn_rl.parts.collect.ray.CONNECT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is None:  # the server accepts and stays silent
                    connection.recv(1000)
                    over.wait()
                else:
                    connection.sendall(answer)

        over, talker = threading.Event(), threading.Thread(target=talk)
        talker.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        overrides = [*TINY, "collect=ray", f"collect.address={address}", f"out={tmp_path / 'run'}"]
        with pytest.raises(RecipeError, match="expected auto, or the HOST:PORT of a running Ray"):
            compose("sqn", *overrides).train()
        over.set()
        talker.join()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("actors=0", "a whole number in"),
        ("rows=1.5", "a whole number in"),
        ("depth=0", "a whole number in"),
        ("sync_every=-1", "a whole number in"),
        ("order=first", "one of cyclic, any"),
        ("ladder=1", r"a number in \(1, 1e6\], or null"),
        ("ladder=1e7", r"a number in \(1, 1e6\], or null"),
    ],
)
def test_invalid_collect_settings_are_refused(setting: str, expected: str) -> None:
    with pytest.raises(RecipeError, match=expected):
        compose("sqn", *TINY, "collect=inline", f"collect.{setting}").preflight()


def test_preflight_notes_how_old_the_weights_of_actors_can_be() -> None:
    wide = [
        "collect=inline",
        "collect.actors=4",
        "collect.rows=100",
        "update_ratio=0.5",
    ]  # 2 · 4 · 100 · 2 · ½
    notes = compose("sqn", *TINY, *wide).preflight().notes
    assert any("up to about 800 updates old; lower collect.rows" in note for note in notes)


def test_a_failed_construction_of_an_actor_is_reported_even_after_a_restore() -> None:
    def fail(actor: int) -> CollectingWorker:
        raise ValueError("no such game")

    process = ActorProcess(fail, 0)
    process.restore({})
    failure = process.started()
    assert failure is not None
    assert failure.message.startswith("ValueError: no such game")
