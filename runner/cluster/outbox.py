"""A worker's messages on their way: numbered, sent in batches, kept until acknowledged."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import NamedTuple

from runner.cluster.messages import Answer, Batch, Message

LINGER_S = 0.25
"""How long a message that nobody waits for may wait for others."""

COALESCE_S = 0.02
"""The same for one that somebody waits for."""

MAX_BATCH_BYTES = 1 << 20
MAX_BATCH_MESSAGES = 1000
MAX_UNACKNOWLEDGED_BYTES = 32 << 20


class _Kept(NamedTuple):
    message: Message
    n_bytes: int


class Outbox:
    """Used from one event loop."""

    def __init__(self, *, linger_s: float = LINGER_S, max_bytes: int = MAX_UNACKNOWLEDGED_BYTES) -> None:
        self._linger_s = linger_s
        self._max_bytes = max_bytes
        self._kept: deque[_Kept] = deque()
        self._first = 1
        """The number of the first message that is kept."""

        self._n_bytes = 0
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._news = asyncio.Event()
        self._haste = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._reader = 0
        self._is_closed = False
        self._abandoned: str | None = None

    def put(self, message: Message, *, n_bytes: int = 0, in_haste: bool = False) -> int:
        """Send a message, unless the last one was put; return its number."""
        if self._is_closed:
            return self._first + len(self._kept) - 1
        self._kept.append(_Kept(message, n_bytes))
        self._n_bytes += n_bytes
        if self._n_bytes > self._max_bytes and self._abandoned is None:
            self._has_room.clear()
        self._news.set()
        if in_haste:
            self._haste.set()
        return self._first + len(self._kept) - 1

    def close(self, last: Message) -> None:
        """Send a message behind which there are no others."""
        self.put(last, in_haste=True)
        self._is_closed = True

    def ask(self, message: Message, *, n_bytes: int = 0) -> asyncio.Future[Answer]:
        """Send a message; the driver's answer to it comes with its acknowledgement."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._abandoned is not None:
            answer.set_result(self._abandoned)
        else:
            self._answers[self.put(message, n_bytes=n_bytes, in_haste=True)] = answer
        return answer

    def abandon(self, why: str) -> None:
        """Answer what was asked and will be asked: nobody listens any more."""
        self._abandoned = why
        self._has_room.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(why)
        self._answers.clear()

    async def room(self) -> None:
        """Wait until the driver has caught up, more or less. Safe to cancel."""
        await self._has_room.wait()

    def acknowledge(self, number: int, answers: Mapping[int, Answer]) -> None:
        """Forget the messages up to this one; `answers` are to some of them. Twice does no harm."""
        while self._kept and self._first <= number:
            self._n_bytes -= self._kept.popleft().n_bytes
            self._first += 1
        if self._n_bytes <= self._max_bytes:
            self._has_room.set()
        for asked, answer in answers.items():
            future = self._answers.pop(asked, None)
            if future is not None and not future.done():
                future.set_result(answer)

    async def batches(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what follows a message, and all that comes, until someone else begins to read.

        The reader that lost its connection begins again behind what it had received.
        """
        self._reader += 1
        reader = self._reader
        self._news.set()  # lets an earlier reader notice
        self._haste.set()
        position = after + 1
        while True:
            while position >= self._first + len(self._kept):
                self._news.clear()
                await self._news.wait()
                if reader != self._reader:
                    return
            await self._linger()
            if reader != self._reader:
                return
            batch = self._batch(position)
            position = batch.last + 1
            yield batch

    async def _linger(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger_s):
                await self._haste.wait()
                await asyncio.sleep(COALESCE_S)
        self._haste.clear()

    def _batch(self, position: int) -> Batch:
        messages: list[Message] = []
        n_bytes = 0
        start = position - self._first
        for index in range(start, min(len(self._kept), start + MAX_BATCH_MESSAGES)):
            kept = self._kept[index]
            n_bytes += kept.n_bytes
            if messages and n_bytes > MAX_BATCH_BYTES:
                self._haste.set()  # the rest need not linger
                break
            messages.append(kept.message)
        return Batch(position, tuple(messages))
