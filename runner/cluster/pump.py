"""The driver's end of one worker: has what it says written, acknowledges, asks whether it is still there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from runner.cluster.intake import Intake
from runner.cluster.links import WorkerLink, WorkerLost, WorkerUnavailable
from runner.cluster.messages import Answer, Batch, Message, Over

SILENCE_S = 10.0
"""A worker that said nothing for so long is asked whether it is there: it should speak every second."""

ASK_AFTER_SILENCE_S = 5.0
ASK_AFTER_ERROR_S = 1.5
"""How long it may take to answer that, after it was silent, and after its connection broke. Being wrong
costs little: another worker goes on behind the recorded turns."""

RETRY_S = 0.2
INSIST_S = 60.0
"""How long a worker that is heard may be out of reach of a call: what is too big for a way never arrives."""

MAX_BREAKS = 20
"""How often in a row a worker that answers may not be heard; see INSIST_S."""

OnMessage = Callable[[Message, Answer | None], Awaitable[None]]
"""Told each message when it is written, and the answer if it was a line."""


class _Silent(Exception):  # noqa: N818 - not an error: a reason to ask
    """A worker said nothing for a while."""


class Pump:
    """Hears one worker until it is over, or lost."""

    def __init__(
        self, name: str, link: WorkerLink, intake: Intake, is_owner: Callable[[str, str], bool]
    ) -> None:
        """`is_owner(worker, attempt)` says whose word on an attempt counts."""
        self._name = name
        self._link = link
        self._intake = intake
        self._is_owner = partial(is_owner, name)
        self._received = 0
        self._answers: dict[int, Answer] = {}
        """Those that the worker may not have."""

        self._n_calls: Counter[str] = Counter()
        """By channel."""

    async def hear(self, on_message: OnMessage) -> Over:
        """Hear the worker to its end. Raises WorkerLost."""
        n_breaks = 0
        while True:
            received = self._received
            try:
                return await self._hear(on_message)
            except (WorkerUnavailable, _Silent) as error:
                n_breaks = n_breaks + 1 if self._received == received else 0
                if n_breaks >= MAX_BREAKS:
                    raise WorkerLost(f"it was not heard {n_breaks} times in a row: {error}") from error
                is_silent = isinstance(error, _Silent)
                await self._ask_again(str(error), ASK_AFTER_SILENCE_S if is_silent else ASK_AFTER_ERROR_S)
                await asyncio.sleep(RETRY_S if n_breaks and not is_silent else 0)

    async def once(self, channel: str, method: str, *arguments: Any) -> Any:
        """Call a method of the worker's, once, whatever its connection loses; return its result.

        Calls of one channel are made one behind the other. Raises WorkerLost.
        """
        self._n_calls[channel] += 1
        return await self._insist("once", channel, self._n_calls[channel], method, *arguments)

    async def _insist(self, method: str, *arguments: Any) -> Any:
        """Call a method that may be called twice, until it is known that it was called."""
        began_at = time.monotonic()
        while True:
            try:
                return await self._link.call(method, *arguments)
            except WorkerUnavailable as error:
                if time.monotonic() - began_at > INSIST_S:
                    self._link.kill()  # who hears it is to learn of it
                    raise WorkerLost(f"it could not be told for {INSIST_S:g} s: {error}") from error
                await asyncio.sleep(RETRY_S)

    async def _hear(self, on_message: OnMessage) -> Over:
        async with aclosing(self._link.messages(self._received)) as batches:
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        batch = await anext(batches)
                except StopAsyncIteration:
                    raise WorkerUnavailable("it stopped to speak") from None
                except TimeoutError:
                    raise _Silent(f"it said nothing for {SILENCE_S:g} s") from None
                over = await self._take(batch, on_message)
                if over is not None:
                    return over

    async def _take(self, batch: Batch, on_message: OnMessage) -> Over | None:
        answers = await self._intake.take(batch, self._name, self._is_owner)
        self._received = batch.last
        self._answers |= answers
        for number, message in enumerate(batch.messages, start=batch.first):
            await on_message(message, answers.get(number))
        if isinstance(message := batch.messages[-1], Over):
            return message
        await self._acknowledge()
        return None

    async def _acknowledge(self) -> None:
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._link.call("acknowledge", self._received, self._answers)
        except TimeoutError:
            raise _Silent(f"it said nothing for {SILENCE_S:g} s") from None
        self._answers.clear()

    async def _ask_again(self, why: str, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._insist("ping")
                await self._insist("acknowledge", self._received, self._answers)
        except TimeoutError:
            raise WorkerLost(f"{why}, and did not answer within {within_s:g} s") from None
        self._answers.clear()
