"""kill -9 at any moment: nothing finished is lost or doubled, an unfinished trajectory loses one turn at most."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from runner.journal import Journal, read_events, read_trajectories
from tests.faults.invariants import check_finished, check_sound
from tests.processes import clean_environment, run_module
from tests.stub_server import StubServer, completion

N_CELLS = 4
CONCURRENCY = 6


def reply(messages: list[dict[str, Any]]) -> str:
    """Count in a variable of the kernel, so that a turn is right only in the kernel's true state."""
    n_replies = sum(message["role"] == "assistant" for message in messages)
    if n_replies == 0:
        return "```python\ntotal = 1\nprint(total)\n```"
    if n_replies < N_CELLS:
        return f"```python\ntotal += {n_replies}\nprint(total)\n```"
    return "Answer: " + messages[-1]["content"].split()[-1]


class CountingServer(StubServer):
    """Knows how often each turn of each sample was asked for."""

    def __init__(self) -> None:
        super().__init__(handler=self._answer, latency_s=0.4, keep_requests=False)
        self.asked: Counter[tuple[str, int]] = Counter()
        self.reached = asyncio.Event()
        self._n_until = 0

    def reach(self, n_requests: int) -> None:
        """Set `reached` at this many further requests."""
        self.reached.clear()
        self._n_until = n_requests

    async def _answer(self, body: dict[str, Any]) -> Any:
        messages = body["messages"]
        task = next(m["content"] for m in messages if m["role"] == "user")
        self.asked[task, len(messages)] += 1
        self._n_until -= 1
        if self._n_until <= 0:
            self.reached.set()
        return completion(reply(messages))


def write_tasks(path: Path, n: int) -> set[str]:
    rows = [{"id": f"s{i}", "messages": [{"role": "user", "content": f"task {i}"}]} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {f"s{i}@1" for i in range(n)}


async def run_until_killed(command: list[str], server: CountingServer, n_requests: int, cwd: Path) -> bool:
    """Run a command, and kill its process alone at its n-th request; False when it ends before."""
    server.reach(n_requests)
    process = await start(command, cwd)
    done = asyncio.create_task(process.wait())
    reached = asyncio.create_task(server.reached.wait())
    await asyncio.wait([done, reached], return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    if process.returncode is None:
        process.kill()
    return await done == -signal.SIGKILL


async def start(command: list[str], cwd: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=clean_environment(), stdout=asyncio.subprocess.DEVNULL
    )


@pytest.mark.kernel
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("n_samples", "n_kills"), [(24, 3), pytest.param(120, 15, marks=pytest.mark.slow)])
async def test_kill_in_a_loop(tmp_path: Path, n_samples: int, n_kills: int) -> None:
    """After any number of kills the same command ends with what an undisturbed run gives."""
    attempts = write_tasks(tmp_path / "tasks.jsonl", n_samples)
    chance = random.Random(n_samples)
    n_killed = 0
    async with CountingServer() as server:
        command = [
            sys.executable, "-m", "runner", "--set", f"benchmark=jsonl:{tmp_path}/tasks.jsonl", "--run-dir", "r",
            "--model", f"openai:{server.url}", "--concurrency", str(CONCURRENCY), "--quiet",
        ]  # fmt: skip
        while n_killed < n_kills and await run_until_killed(
            command, server, chance.randint(CONCURRENCY, 4 * CONCURRENCY), tmp_path
        ):
            n_killed += 1
            check_sound(tmp_path / "r", attempts)
        assert await (await start(command, tmp_path)).wait() == 0

    assert n_killed >= 2, "the run was over before it was killed"
    check_finished(tmp_path / "r", attempts)
    rows = list(read_trajectories(tmp_path / "r"))
    assert {row["messages"][-1]["content"] for row in rows} == {f"Answer: {1 + 1 + 2 + 3}"}
    assert {len(row["turns"]) for row in rows} == {N_CELLS + 1}
    n_again = sum(server.asked.values()) - n_samples * (N_CELLS + 1)
    assert n_again <= n_killed * CONCURRENCY, "more than one turn of a trajectory was lost"
    resumed = [e for e in read_events(tmp_path / "r") if e["event"] == "attempt_resumed"]
    assert resumed
    assert all("divergence" not in event for event in resumed)
    assert sum(row["n_resumed_turns"] > 0 for row in rows) > 0
    assert [e for e in read_events(tmp_path / "r") if e["event"] == "attempt_restarted"] == []


def test_second_runner_is_told_who_holds_the_directory(tmp_path: Path) -> None:
    """Two runners on one run directory: the second is refused before it does anything."""
    with Journal(tmp_path / "r"):
        ran = run_module("runner", "--limit", "1", "--run-dir", "r", cwd=tmp_path)
    assert ran.returncode == 1
    assert f"in use by another runner (process {os.getpid()} on {socket.gethostname()}, since" in ran.stderr
