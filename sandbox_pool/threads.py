"""Blocking work off the event loop, that is over when the wait for it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread and return its result.

    When cancelled it still waits for the thread's end before it raises, so that no thread touches a
    folder that is about to be removed.
    """
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, work)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not future.cancelled():
            future.exception()  # retrieved, or the loop would complain of it
        raise cancelled
    return future.result()
