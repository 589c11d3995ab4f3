"""Another shell asks a run, and tells it what to do."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runner.commands.ctl import main, status_lines
from runner.control import POINTER, ControlServer, answer, ask, make_socket_folder
from runner.errors import RunnerError
from runner.records import Owner, StopReason
from runner.telemetry.statistics import EndpointStatistics, Phase, RunStatistics, SandboxStatistics

STATISTICS = RunStatistics(
    n_total=10, n_finished=4, n_in_flight=3, concurrency=8, max_trajectories=6, phases={Phase.MODEL: 3},
    stop_reasons={StopReason.ANSWER: 4}, failures_by_owner={Owner.ENGINE: 1}, paused="lunch",
    endpoints=(EndpointStatistics("gpu:8000", "ready", 3, 0, 16, 3, 64, 1.0, 9, 1),),
    sandboxes=SandboxStatistics(2, 1, 8, 1), last_failure="s1@1: \x1b[2Jdown",
)  # fmt: skip


class Run:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def statistics(self) -> RunStatistics:
        return STATISTICS

    def pause(self, reason: str) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")

    def drain(self, reason: str) -> None:
        self.told.append("drain")

    def cancel(self, sample_id: str) -> list[str]:
        self.told.append(("cancel", sample_id))
        return [f"{sample_id}@1"] if sample_id == "s1" else []

    def set_concurrency(self, concurrency: int) -> int:
        self.told.append(("set", concurrency))
        return concurrency


async def test_command_line_against_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command reaches the run, and its answer the person; the socket is this user's alone."""
    run = Run()
    async with ControlServer(tmp_path, run):
        path = json.loads((tmp_path / POINTER).read_text())["socket"]
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
        assert len(path) < 100
        for words in ("pause", "resume", "drain", "cancel s1", "set concurrency=5", "status"):
            assert await asyncio.to_thread(main, [str(tmp_path), *words.split()]) == 0
        assert await asyncio.to_thread(main, [str(tmp_path), "cancel", "nobody"]) == 1
        assert await asyncio.to_thread(main, [str(tmp_path), "status", "--json"]) == 0
    assert run.told == ["pause", "resume", "drain", ("cancel", "s1"), ("set", 5), ("cancel", "nobody")]
    output = capsys.readouterr()
    assert "no attempt of 'nobody' is running" in output.err
    assert "3 in flight (at most 6 of 8): 3 model" in output.out
    assert "endpoint gpu:8000: ready, 3/16 calls" in output.out
    assert "paused: lunch" in output.out
    assert "\x1b" not in output.out
    assert json.loads(output.out.splitlines()[-1])["status"]["n_total"] == 10
    assert not Path(path).parent.exists()
    assert not (tmp_path / POINTER).exists()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"command": "format disk"}, "no such command: 'format disk'"),
        ({}, "no such command: None"),
        ({"command": "set", "concurrency": 0}, "a number from 1 to"),
        ({"command": "set", "concurrency": True}, "a number from 1 to"),
        ({"command": "set", "concurrency": "5"}, "a number from 1 to"),
        ({"command": "cancel"}, "no such command"),
    ],
)
def test_bad_requests_are_told(request_: dict[str, Any], error: str) -> None:
    """And change nothing."""
    run = Run()
    assert error in answer(run, request_)["error"]
    assert run.told == []


@pytest.mark.parametrize("sent", [b"not json\n", b"[1]\n", b"x" * 200_000, b"\xff\n", b""])
async def test_malformed_clients_do_no_harm(tmp_path: Path, sent: bytes) -> None:
    """Garbage, an endless line, a client that says nothing and goes: the next one is served."""
    async with ControlServer(tmp_path, Run()):
        path = json.loads((tmp_path / POINTER).read_text())["socket"]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(sent)
        try:
            await writer.drain()
            writer.write_eof()
            await reader.read()
        except OSError:
            pass
        writer.close()
        assert "status" in await ask(tmp_path, {"command": "status"})


@pytest.mark.parametrize("sent", [b"{\n", b"[" * 20_000 + b"\n"])
async def test_request_that_is_no_json_is_told(tmp_path: Path, sent: bytes) -> None:
    """However it fails to be any."""
    async with ControlServer(tmp_path, Run()):
        path = json.loads((tmp_path / POINTER).read_text())["socket"]
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(sent)
        assert b'{"error":"not JSON' in await reader.readline()
        writer.close()


async def test_client_that_does_not_read_keeps_nobody(tmp_path: Path) -> None:
    """The end of the run does not wait until it has taken its answers."""
    before = asyncio.all_tasks()
    with socket.socket(socket.AF_UNIX) as client:
        async with ControlServer(tmp_path, Run()):
            client.connect(json.loads((tmp_path / POINTER).read_text())["socket"])
            client.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    client.send(b'{"command":"status"}\n' * 100)
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while asyncio.all_tasks() - before:  # noqa: ASYNC110 - the server has no event to wait for
                await asyncio.sleep(0.01)


async def test_runs_that_cannot_be_asked(tmp_path: Path) -> None:
    """None there, none running, one that was killed, one on another machine: each is told apart."""
    with pytest.raises(RunnerError, match="does not exist"):
        await ask(tmp_path / "none", {})
    with pytest.raises(RunnerError, match="is not running"):
        await ask(tmp_path, {})
    pointer = {"socket": str(tmp_path / "gone"), "pid": 1, "host": socket.gethostname()}
    (tmp_path / POINTER).write_text(json.dumps(pointer))
    with pytest.raises(RunnerError, match=r"process 1\) does not answer"):
        await ask(tmp_path, {})
    (tmp_path / POINTER).write_text(json.dumps(pointer | {"host": "elsewhere"}))
    with pytest.raises(RunnerError, match="runs on elsewhere, process 1"):
        await ask(tmp_path, {})
    (tmp_path / POINTER).write_text("{")
    with pytest.raises(RunnerError, match="not readable"):
        await ask(tmp_path, {})


async def test_socket_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    """The next process of the run takes away what the killed one left."""
    path = make_socket_folder() / "ctl"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    (tmp_path / POINTER).write_text(json.dumps({"socket": str(path)}))
    async with ControlServer(tmp_path, Run()):
        assert not path.parent.exists()


async def test_copy_of_a_run_leaves_it_its_socket(tmp_path: Path) -> None:
    """The file in a copied directory names the socket of the run that it was copied from."""
    (tmp_path / "copy").mkdir()
    async with ControlServer(tmp_path, Run()):
        shutil.copy(tmp_path / POINTER, tmp_path / "copy")
        async with ControlServer(tmp_path / "copy", Run()):
            assert "status" in await ask(tmp_path, {"command": "status"})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_other_users_are_not_served(tmp_path: Path) -> None:
    """Nobody else can even reach the socket's folder."""
    async with ControlServer(tmp_path, Run()):
        path = json.loads((tmp_path / POINTER).read_text())["socket"]
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        process = await asyncio.create_subprocess_exec(
            "setpriv", "--reuid", "65534", "--clear-groups", "/usr/bin/python3", "-c", code,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
    assert b"PermissionError" in errors


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """What a command needs and does not get is said."""
    for arguments in (
        ["r", "cancel"],
        ["r", "set", "speed=3"],
        ["r", "set"],
        ["r", "set", "concurrency=\N{SUPERSCRIPT TWO}"],
        ["r", "set", "concurrency=" + "9" * 5000],
        ["r", "pause", "now"],
        ["r", "fly"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "set takes concurrency=N, not 'speed=3'" in capsys.readouterr().err
    assert status_lines({**json.loads(json.dumps({"sandboxes": None})), **_plain()})


def _plain() -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(RunStatistics(1))
