"""The thread that writes lines outlives whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.journal.appender import Appender
from runner.journal.lines import AppendOnlyFile


class Faulty(AppendOnlyFile):
    """Raises what nobody expects for a line that holds `bad`."""

    def append(self, line: bytes) -> None:
        if b"bad" in line:
            raise MemoryError("no memory")
        super().append(line)


@pytest.fixture(name="appender")
def _appender() -> Iterator[Appender]:
    appender = Appender()
    yield appender
    appender.close()


async def test_unexpected_error_is_told_to_its_line_alone(tmp_path: Path, appender: Appender) -> None:
    """Who waits for the line hears of it; the others are written, also those that come later."""
    file = Faulty(tmp_path / "f")
    lines = [b"1\n", b"bad\n", b"2\n"]
    async with asyncio.timeout(10):
        written = await asyncio.gather(*(appender.append(file, x) for x in lines), return_exceptions=True)
        await appender.append(file, b"3\n")
    file.close()
    assert [type(one) for one in written] == [type(None), MemoryError, type(None)]
    assert (tmp_path / "f").read_bytes() == b"1\n2\n3\n"
