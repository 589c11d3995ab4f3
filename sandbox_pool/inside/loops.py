"""The event loop of cells with a top-level `await`.

One loop for all cells of a kernel, running only while such a cell does: tasks that an earlier cell made go
on when a later one awaits. Between and in other cells no loop runs, so that asyncio.run() works, which under
ipykernel it does not.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Coroutine
from typing import Any

_CALLS_RUNNING_LOOP = re.compile(r"\b(create_task|ensure_future|get_running_loop)\b")
_CALLS_LOOP_ITSELF = re.compile(r"\b(asyncio\.run|run_until_complete|run_forever|Runner)\b")


class CellLoop:
    """Runs cells in a loop. For the main thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def prepare(self, code: str) -> None:
        """Make asyncio.get_event_loop() return our loop, in cells that may ask for one."""
        if self._loop is not None or "asyncio" in code:
            asyncio.set_event_loop(self._own())

    def is_needed_by(self, code: str) -> bool:
        """Return whether a cell without `await` makes tasks, as it can where a loop always runs.

        Guessed from its text; one that also starts a loop of its own is left alone.
        """
        return bool(_CALLS_RUNNING_LOOP.search(code)) and not _CALLS_LOOP_ITSELF.search(code)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell's coroutine to its end; an interrupt ends it where it awaits.

        Raises KeyboardInterrupt if the cell does not end by itself then.
        """
        loop = self._own()
        asyncio.set_event_loop(loop)
        task = loop.create_task(work)
        try:
            return loop.run_until_complete(task)
        except KeyboardInterrupt:
            if task.done():
                raise
            task.cancel()
            try:
                return loop.run_until_complete(task)
            except asyncio.CancelledError:
                raise KeyboardInterrupt from None

    def close(self) -> None:
        """Close the loop: the zygote must hand on no descriptors."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def _own(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                self._loop = asyncio.new_event_loop()
        return self._loop
