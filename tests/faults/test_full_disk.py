"""A disk that becomes full: the run ends cleanly, loses nothing that was finished, and goes on with more space."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.journal import Journal, read_trajectories
from tests.faults.invariants import check_finished, check_sound
from tests.processes import clean_environment, run_module
from tests.runner.factories import append, trajectory
from tests.stub_server import StubServer


@pytest.fixture(name="small_disk")
def _small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of a quarter of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)


def fill(folder: Path, leave_bytes: int) -> None:
    """Leave so much space."""
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "filler").write_bytes(b"x" * (free - leave_bytes))


async def test_finished_attempts_are_held_until_there_is_space(small_disk: Path) -> None:
    """A line that finds no space waits in memory, and is written when the journal is closed and there is some."""
    with Journal(small_disk / "r") as journal:
        fill(small_disk, 8192)
        n_written = 0
        for number in range(20):
            n_written += await append(journal, trajectory(f"s{number}", error="x" * 1000))
        assert 0 < n_written < 20
        assert "No space left" in str(journal.trouble)
        enlarge(small_disk)
        journal.trouble = None
    assert [row["sample_id"] for row in read_trajectories(small_disk / "r")] == [f"s{n}" for n in range(20)]


@pytest.mark.kernel
@pytest.mark.timeout(180)
async def test_run_on_a_full_disk_ends_and_goes_on(small_disk: Path, tmp_path: Path) -> None:
    """Exit code 1, the file and the remedy; no torn line; with more space the same command ends everything once."""
    n = 400
    rows = [{"id": f"s{i}", "messages": [{"role": "user", "content": f"task {i}"}]} for i in range(n)]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    attempts = {f"s{i}@1" for i in range(n)}
    async with StubServer(latency_s=0.01, keep_requests=False) as server:
        command = [
            sys.executable, "-m", "runner", "--set", f"benchmark=jsonl:{tmp_path}/tasks.jsonl", "--run-dir",
            str(small_disk / "r"), "--model", f"openai:{server.url}", "--concurrency", "8", "--set", "grace_s=10",
        ]  # fmt: skip
        first = await run(command)
        assert first.returncode == 1, first.stderr
        assert "No space left on device; free some space and run the same command again" in first.stderr
        check_sound(small_disk / "r", attempts)
        n_first = len(list(read_trajectories(small_disk / "r")))
        assert 0 < n_first < n
        assert (small_disk / "r" / "trajectories.jsonl").read_bytes().endswith(b"\n")
        enlarge(small_disk)
        second = await run(command)
    assert second.returncode == 0, second.stderr
    check_finished(small_disk / "r", attempts)


async def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command beside this loop's server."""
    import asyncio

    def block() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=clean_environment(), timeout=120
        )

    return await asyncio.to_thread(block)


def test_no_space_at_the_start(small_disk: Path) -> None:
    """Nothing is begun where nothing can be written."""
    fill(small_disk, 0)
    ran = run_module("runner", "--limit", "1", "--run-dir", str(small_disk / "r"))
    assert ran.returncode == 1
    assert "cannot write" in ran.stderr
    assert "free some space" in ran.stderr
