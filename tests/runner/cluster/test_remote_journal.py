"""What a worker records goes to its driver: files once, but again when they are others; a line to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.cluster.messages import FilePart, Incomplete, Recorded
from runner.cluster.outbox import Outbox
from runner.cluster.remote_journal import RemoteJournal
from runner.encoding import encode_line
from runner.errors import JournalError
from tests.runner.factories import trajectory

NAME = "artifacts/one/1/displayed/turn001-1.png"
TURN = b'{"turn":{},"messages":[],"artifacts":[{"path":"%b"}]}\n' % NAME.encode()


class Sent(Outbox):
    """Keeps what is put, and the number of what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Any] = []

    def put(self, message: Any, *, n_bytes: int = 0, in_haste: bool = False) -> int:
        self.messages.append(message)
        return super().put(message, n_bytes=n_bytes, in_haste=in_haste)

    def parts(self) -> list[bytes]:
        return [message.data for message in self.messages if isinstance(message, FilePart)]

    def answer(self, answer: Any) -> None:
        self.acknowledge(len(self.messages), {len(self.messages): answer})


def show(journal: RemoteJournal, data: bytes) -> None:
    path = journal.run_dir / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def until_asked(outbox: Sent, n: int = 1) -> None:
    """Wait until so many lines were sent."""
    async with asyncio.timeout(10):
        while sum(isinstance(message, Recorded) for message in outbox.messages) < n:  # noqa: ASYNC110 - a list
            await asyncio.sleep(0.001)


async def test_a_file_goes_once_and_its_successor_of_the_same_name_too(tmp_path: Path) -> None:
    """An attempt that begins again and ends in its first turn has written no turn ahead."""
    journal = RemoteJournal(tmp_path, outbox := Sent())
    log = journal.turn_log("one@1", {})
    show(journal, b"first")
    log.append(TURN)
    log.append(TURN)
    assert outbox.parts() == [b"first"]

    log.restart()
    show(journal, b"second")
    appending = asyncio.create_task(journal.append("one@1", encode_line(trajectory())))
    await until_asked(outbox)
    assert outbox.parts() == [b"first", b"second"]
    outbox.answer(True)
    assert await appending


async def test_an_append_that_is_cancelled_twice_knows_its_line_all_the_same(tmp_path: Path) -> None:
    """Else a finished attempt would be noted as cancelled."""
    journal = RemoteJournal(tmp_path, outbox := Sent())
    appending = asyncio.create_task(journal.append("one@1", encode_line(trajectory())))
    await until_asked(outbox)
    for _ in range(2):
        appending.cancel()
        await asyncio.sleep(0.01)
        assert not appending.done()
    outbox.answer(True)
    await asyncio.wait([appending])

    assert journal.done == {"one@1"}


async def test_an_attempt_whose_files_did_not_arrive_has_no_line(tmp_path: Path) -> None:
    """It may be given to this worker again, and then sends all its files."""
    journal = RemoteJournal(tmp_path, outbox := Sent())
    show(journal, b"first")
    appending = asyncio.create_task(journal.append("one@1", encode_line(trajectory())))
    await until_asked(outbox)
    outbox.answer(Incomplete("0 of 5 bytes arrived"))

    assert not await appending
    assert journal.done == set()
    assert journal.trouble is None
    appending = asyncio.create_task(journal.append("one@1", encode_line(trajectory())))
    await until_asked(outbox, 2)
    assert outbox.parts() == [b"first", b"first"]
    outbox.abandon("it is over")
    with pytest.raises(JournalError, match="it is over"):
        await appending
