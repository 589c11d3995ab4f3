"""What has been heard of one kernel, and the wait for more."""

from __future__ import annotations

import asyncio

from sandbox_pool.channel import Source, StreamName
from sandbox_pool.messages import Cell
from sandbox_pool.wire import Message

_MAX_EARLY_BYTES = 2000


class Heard:
    """The Listener of a kernel's channel: takes down what comes, and folds it into the cell that runs.

    Used from one event loop, by one task that waits at a time.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        """Set when there is something to look at."""

        self.cell: Cell | None = None
        """The cell that runs."""

        self.has_begun = False
        """Whether a cell has run that can have done something to the sandbox."""

        self.is_ready = False
        self.is_cut_off = False
        self.has_iopub = False
        self.has_shell = False
        self.n_garbage = 0
        """What came since the cell began and is nothing that a kernel sends."""

        self._early_text = b""

    def begin(self, cell: Cell, *, is_told: bool) -> Cell:
        """Fold what comes from now on into this cell, and return it.

        Args:
            cell: that has been sent to the kernel.
            is_told: whether the kernel tells for sure when it begins with its first cell.
        """
        self.cell = cell
        self.has_begun |= not is_told
        self.n_garbage = 0
        return cell

    async def something(self) -> None:
        """Wait until something has changed."""
        self.changed.clear()
        await self.changed.wait()

    async def something_within(self, limit_s: float) -> bool:
        """Wait until something has changed; False when nothing does within `limit_s`."""
        try:
            async with asyncio.timeout(limit_s):
                await self.something()
        except TimeoutError:
            return False
        return True

    def early_text(self) -> str:
        """Return the end of what was written before the first cell."""
        return self._early_text.decode("utf-8", "replace").strip() or "nothing"

    # -- events, from the loop

    def on_ready(self) -> None:
        """See `Listener`."""
        self.is_ready = True
        self.changed.set()

    def on_message(self, source: Source, message: Message) -> None:
        """See `Listener`."""
        if source == "iopub":
            self.has_iopub = True
        else:
            self.has_shell = True
        if self.cell is None or self.cell.add(source, message):
            self.changed.set()
        if self.cell is not None:
            self.has_begun |= self.cell.has_begun

    def on_text(self, name: StreamName, data: bytes) -> None:
        """See `Listener`."""
        if self.cell is not None:
            self.cell.add_text(name, data)
            if self.cell.is_over_budget:
                self.changed.set()
        elif not self.has_begun:
            self._early_text = (self._early_text + data)[-_MAX_EARLY_BYTES:]

    def on_skipped(self, n_bytes: int) -> None:
        """See `Listener`."""
        if self.cell is not None:
            self.cell.add_skipped(n_bytes)
            self.changed.set()

    def on_cut_off(self) -> None:
        """See `Listener`."""
        self.is_cut_off = True
        self.changed.set()

    def on_garbage(self, problem: str) -> None:
        """See `Listener`."""
        self.n_garbage += 1
        self.changed.set()
