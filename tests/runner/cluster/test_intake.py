"""What workers send is written in order; a line only where every file that it names has arrived whole."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from typing import Any

import pytest

from runner.cluster import intake as module
from runner.cluster.intake import Intake
from runner.cluster.messages import (
    Answer,
    Batch,
    FilePart,
    Incomplete,
    Message,
    Recorded,
    StagedFile,
    TurnDone,
)
from runner.encoding import encode_line
from runner.errors import JournalError
from runner.journal import Journal, read_inflight, read_trajectories
from runner.plan import Attempt
from runner.records import Owner, StopReason
from runner.telemetry.statistics import FinishedAttempt
from tests.runner.factories import sample, trajectory

FOLDER = "artifacts/s0/1"


def recorded(*files: tuple[str, int]) -> Recorded:
    line = encode_line(trajectory("s0"))
    return Recorded("s0@1", line, files, FinishedAttempt("s0@1", StopReason.ANSWER, Owner.MODEL, 1, 1.0))


def turn(number: int) -> TurnDone:
    return TurnDone("s0@1", {}, b'{"turn":%d,"messages":[]}\n' % number, replaces=number == 1)


async def take(journal: Journal, *messages: Message, is_owner: bool = True) -> list[Answer]:
    answers = await Intake(journal).take(Batch(1, messages), "w", lambda attempt: is_owner)
    return list(answers.values())


def n_lines(journal: Journal) -> int:
    return len(list(read_trajectories(journal.run_dir)))


async def test_a_file_in_pieces_and_its_line(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        stale = tmp_path / FOLDER / "of the owner before"
        stale.parent.mkdir(parents=True)
        stale.write_bytes(b"x")
        parts = [FilePart("s0@1", f"{FOLDER}/a/b", n, b"abc"[n : n + 1], n == 2) for n in range(3)]

        assert await take(journal, turn(1), *parts, recorded((f"{FOLDER}/a/b", 3))) == [True]

        assert (tmp_path / FOLDER / "a/b").read_bytes() == b"abc"
        assert not stale.exists()
        assert n_lines(journal) == 1
        assert not list(read_inflight(tmp_path))


async def test_a_shorter_file_replaces_a_longer_one(tmp_path: Path) -> None:
    """The owner before was lost in the middle of a big one."""
    with Journal(tmp_path) as journal:
        await take(journal, FilePart("s0@1", f"{FOLDER}/a", 0, b"123456789", is_last=False))
        part = FilePart("s0@1", f"{FOLDER}/a", 0, b"abc", is_last=True)
        assert await take(journal, part, recorded((f"{FOLDER}/a", 3))) == [True]


@pytest.mark.parametrize("is_staged", [False, True])
async def test_a_file_where_the_owner_before_had_a_folder_and_the_reverse(
    tmp_path: Path, is_staged: bool
) -> None:
    """What a model writes need not be the same twice: that is no broken disk, at which each resume would end."""
    with Journal(tmp_path) as journal:
        for left in ("a/b/c", "d", "e/f"):
            (tmp_path / FOLDER / left).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / FOLDER / left).write_bytes(b"left")
        sent: list[Message] = []
        for name in ("a", "d/g/h", "e/f/i"):
            path = f"{FOLDER}/{name}"
            source = tmp_path / ".workers/w" / name
            source.parent.mkdir(parents=True, exist_ok=True)
            source.write_bytes(b"abc")
            part = FilePart("s0@1", path, 0, b"abc", is_last=True)
            sent.append(StagedFile("s0@1", path, f".workers/w/{name}") if is_staged else part)

        files = [(f"{FOLDER}/{name}", 3) for name in ("a", "d/g/h", "e/f/i")]
        assert await take(journal, *sent, recorded(*files)) == [True]
        assert journal.trouble is None
        assert {(tmp_path / name).read_bytes() for name, _ in files} == {b"abc"}


async def test_only_what_is_the_attempts_own_makes_way(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        other = tmp_path / "artifacts/s0/2"
        other.parent.mkdir(parents=True)
        other.write_bytes(b"of another")
        part = FilePart("s0@1", "artifacts/s0/2/a", 0, b"abc", is_last=True)
        await take(journal, part)
        assert other.read_bytes() == b"of another"
        assert journal.trouble is not None
        journal.trouble = None


@pytest.mark.parametrize(
    "sent",
    [
        [],
        [FilePart("s0@1", f"{FOLDER}/a", 0, b"ab", is_last=False)],
        [StagedFile("s0@1", f"{FOLDER}/a", ".workers/gone/a")],
    ],
    ids=["never sent", "torn", "its folder is gone"],
)
async def test_a_line_whose_file_did_not_arrive_is_not_written(tmp_path: Path, sent: list[Message]) -> None:
    """That is this attempt's alone: the run goes on, and its turns stay for who has it next."""
    with Journal(tmp_path) as journal:
        (answer,) = await take(journal, turn(1), *sent, recorded((f"{FOLDER}/a", 3)))

        assert isinstance(answer, Incomplete)
        assert journal.trouble is None
        assert n_lines(journal) == 0
        assert [len(found.turns) for found in read_inflight(tmp_path)] == [1]


async def test_what_an_earlier_owner_says_is_passed_over(tmp_path: Path) -> None:
    """Its line is answered, so that it does not wait for it."""
    with Journal(tmp_path) as journal:
        part = FilePart("s0@1", f"{FOLDER}/a", 0, b"abc", is_last=True)
        assert await take(journal, turn(1), part, recorded(), is_owner=False) == [True]
        assert n_lines(journal) == 0
        assert not (tmp_path / FOLDER).exists()
        assert not list(read_inflight(tmp_path))


async def test_a_picture_that_cannot_be_read_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its attempt begins again, since the worker that has it next does not find it."""
    first, second = (f"{FOLDER}/displayed/turn00{n}-1.png" for n in (1, 2))
    line = b'{"turn":1,"messages":[],"artifacts":["%b","%b"]}\n' % (first.encode(), second.encode())
    read_bytes = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == tmp_path / second:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", read)
    with Journal(tmp_path) as journal:
        await take(journal, TurnDone("s0@1", {}, line, replaces=True))
        for name in (first, second, f"{FOLDER}/unnamed"):
            await take(journal, FilePart("s0@1", name, 0, b"abc", is_last=True))
        turns, pictures = Intake(journal).recorded(Attempt(sample("s0"), 1))

    assert turns is not None
    assert turns.endswith(line)
    assert pictures == ((first, b"abc"),)


async def test_no_turn_behind_a_picture_that_could_not_be_written(tmp_path: Path) -> None:
    """A resume would go on from it, with a picture that is not whole."""
    with Journal(tmp_path) as journal:
        (tmp_path / "artifacts").mkdir()
        (tmp_path / "artifacts/s0").touch()
        picture = FilePart("s0@1", f"{FOLDER}/displayed/turn002-1.png", 0, b"abc", is_last=True)
        await take(journal, turn(1), picture, turn(2), turn(3))

        assert [row["turn"] for found in read_inflight(tmp_path) for row in found.turns] == [1]
        assert journal.trouble is not None
        journal.trouble = None


async def test_no_turn_behind_one_that_could_not_be_written(tmp_path: Path) -> None:
    """A resume would execute what comes behind a gap."""
    with Journal(tmp_path) as journal:
        log = tmp_path / "inflight" / "s0@1.jsonl"
        intake = Intake(journal)

        async def put(*messages: Message) -> None:
            await intake.take(Batch(1, messages), "w", lambda attempt: True)

        await put(turn(1))
        whole = log.read_bytes()
        log.unlink()
        log.mkdir()
        await put(turn(2))
        log.rmdir()
        log.write_bytes(whole)
        await put(turn(3))

        assert [row["turn"] for found in read_inflight(tmp_path) for row in found.turns] == [1]


@pytest.mark.parametrize("path", ["trajectories.jsonl", "artifacts/../config.json", "/etc/passwd"])
async def test_only_artifacts_are_written(tmp_path: Path, path: str) -> None:
    with Journal(tmp_path) as journal, pytest.raises(ExceptionGroup) as caught:
        await take(journal, FilePart("s0@1", path, 0, b"", is_last=True))
    assert caught.group_contains(JournalError, match="no path of an artifact")


async def test_a_line_that_is_being_written_is_written_when_the_run_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing writes on behind the end of `take`, into a journal that is closed."""
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    check = Intake._check_files

    def slowly(self: Intake, message: Any) -> None:
        loop.call_soon_threadsafe(began.set)
        check(self, message)

    monkeypatch.setattr(module.Intake, "_check_files", slowly)
    with Journal(tmp_path) as journal:
        taking = asyncio.create_task(take(journal, recorded()))
        await began.wait()
        n_tasks = len(asyncio.all_tasks())
        taking.cancel()
        await asyncio.wait([taking])
        assert n_tasks == 3  # this one, the taking, and the line's
        assert len(asyncio.all_tasks()) == 1
