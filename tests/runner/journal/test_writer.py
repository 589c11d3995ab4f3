"""What has a line is never lost, doubled or torn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.encoding import encode_line
from runner.errors import JournalError
from runner.journal import (
    TRAJECTORIES,
    Journal,
    empty_artifacts,
    read_config,
    read_events,
    read_failures,
    read_trajectories,
)
from tests.runner.factories import append, trajectory


async def test_appended_lines_are_read_back_in_order(tmp_path: Path) -> None:
    """The reader yields what was appended, and the next writer knows it as done."""
    with Journal(tmp_path) as journal:
        await append(journal, trajectory("a"))
        await append(journal, trajectory("b"))

    assert [row["attempt"] for row in read_trajectories(tmp_path)] == ["a@1", "b@1"]
    with Journal(tmp_path) as journal:
        assert {"a@1", "b@1"} == journal.done


async def test_failures_do_not_count_as_done(tmp_path: Path) -> None:
    """An attempt that failed by our fault is kept apart and runs again."""
    with Journal(tmp_path) as journal:
        await journal.append_failure(encode_line(trajectory("a")))

    assert [row["attempt"] for row in read_failures(tmp_path)] == ["a@1"]
    assert list(read_trajectories(tmp_path)) == []


async def test_last_line_that_was_not_synced_is_told(tmp_path: Path) -> None:
    """A line that could not be synced is an error at the latest when the journal is closed."""
    (tmp_path / TRAJECTORIES).symlink_to("/dev/null")  # takes any line, and cannot be synced

    async def write() -> None:
        with Journal(tmp_path, sync_interval_s=0.001) as journal:
            await append(journal, trajectory("a"))
            journal._syncer.join()  # it ends at the first error

    with pytest.raises(JournalError, match=TRAJECTORIES):
        await write()


async def test_concurrent_appends_do_not_interleave(tmp_path: Path) -> None:
    """Many writers at once give whole lines."""
    long_text = "x" * 300_000
    with Journal(tmp_path) as journal:
        async with asyncio.TaskGroup() as group:
            for i in range(40):
                group.create_task(append(journal, trajectory(f"s{i}", error=long_text)))

    assert len({row["attempt"] for row in read_trajectories(tmp_path)}) == 40


async def test_cancelled_append_still_writes(tmp_path: Path) -> None:
    """Cancelling the waiter neither tears nor drops the line."""
    with Journal(tmp_path) as journal:
        appending = asyncio.ensure_future(append(journal, trajectory("a")))
        await asyncio.sleep(0)
        appending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await appending

    assert [row["attempt"] for row in read_trajectories(tmp_path)] == ["a@1"]


def test_event_that_cannot_be_written_raises_nothing(tmp_path: Path) -> None:
    """Whoever tells of one (a timer, a watcher of endpoints) goes on; the run is told to end."""
    with Journal(tmp_path) as journal:
        journal.event("first")
        journal._events.close()
        journal.event("second")
        assert "cannot write" in str(journal.trouble)
        journal.trouble = None
    journal.event("after the end")
    assert [event["event"] for event in read_events(tmp_path)] == ["first"]


def test_torn_line_is_reported_as_an_event(tmp_path: Path) -> None:
    """Opening a torn journal succeeds and says so."""
    (tmp_path / TRAJECTORIES).write_bytes(b'{"attempt": "a@1", "sample')

    with Journal(tmp_path) as journal:
        assert set() == journal.done

    assert [event["event"] for event in read_events(tmp_path)] == ["torn_line_repaired"]


def test_second_writer_is_refused(tmp_path: Path) -> None:
    """Two runners cannot write one run directory."""
    with Journal(tmp_path), pytest.raises(JournalError, match="in use by another runner"):
        Journal(tmp_path).__enter__()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"not json\n", r"trajectories.jsonl:2: not JSON", id="garbage"),
        pytest.param(b'{"index": "2"}\n', r"trajectories.jsonl:2: no line of ours", id="foreign"),
        pytest.param(b"[1, 2]\n", r"trajectories.jsonl:2: no line of ours", id="no-object"),
    ],
)
async def test_unreadable_line_names_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    """A foreign journal is refused with the place and a remedy."""
    with Journal(tmp_path) as journal:
        await append(journal, trajectory("a"))
    with (tmp_path / TRAJECTORIES).open("ab") as file:
        file.write(line)

    with pytest.raises(JournalError, match=message):
        Journal(tmp_path).__enter__()


def test_config_is_replaced_whole(tmp_path: Path) -> None:
    """config.json is never seen half written, and a foreign one is refused."""
    with Journal(tmp_path) as journal:
        journal.write_config({"run_id": "1"})
        journal.write_config({"run_id": "2"})
    assert read_config(tmp_path) == {"run_id": "2"}

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(JournalError, match="not the config of a run"):
        read_config(tmp_path)


def test_artifacts_folder_is_emptied(tmp_path: Path) -> None:
    """What an earlier try left is gone before the next one begins, but for what is gone on from."""
    with Journal(tmp_path) as journal:
        path, name = journal.artifacts_dir("a", 1)
    assert name == "artifacts/a/1"
    (path / "output").mkdir(parents=True)
    (path / "displayed").mkdir()
    (path / "file").write_text("")
    empty_artifacts(path, keep="displayed")
    assert [child.name for child in path.iterdir()] == ["displayed"]
    empty_artifacts(path)
    assert not path.exists()


def test_unwritable_folder_is_a_clear_error() -> None:
    """A run directory that cannot be made, not even by root, is named."""
    with pytest.raises(JournalError, match=r"cannot write /proc/run: .*may be written"):
        Journal(Path("/proc/run")).__enter__()


def test_run_directory_that_is_a_file(tmp_path: Path) -> None:
    """A file in the place of the run directory is named."""
    (tmp_path / "run").write_text("")
    with pytest.raises(JournalError, match="cannot write"):
        Journal(tmp_path / "run").__enter__()
