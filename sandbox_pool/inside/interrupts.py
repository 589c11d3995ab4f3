"""Which signals reach a cell: interrupts that the sandbox's init announced, and none from outside.

A drain of the runner must not be cut short by a signal to the whole process tree. So SIGTERM does nothing
(by a handler, not by ignoring it: children must get the default), and SIGINT counts only with a byte in the
pipe that init writes to just before it signals. The byte says which cell is meant: one that came before the
cell began is kept for it, one that came after it was over interrupts no other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

ANY_CELL = ord("i")
"""The byte that means whichever cell is running."""

_BOTH = (signal.SIGINT, signal.SIGTERM)
_AGAIN_S = (0.005, 0.02, 0.05, 0.1, 0.2)


class Interrupts:
    """The kernel's signal handlers. For the main thread. Owns the read end given to it."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._is_armed = False
        self._is_forced = False
        self._mark: int | None = None
        self._early: set[int] = set()  # changed in place only: a handler may run between any two steps
        self._masks: dict[int, Iterable[int]] = {}
        os.set_blocking(pipe, False)

    def install(self) -> None:
        """Take over both signals; leave two to errors, as Python does: a broken pipe, too large a file."""
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _do_nothing)
        signal.signal(signal.SIGINT, self._on_interrupt)

    def arm(self, mark: int | None = None) -> None:
        """Let interrupts through: a cell begins.

        Raises KeyboardInterrupt at once if this cell, known by its `mark`, was interrupted before it began;
        what was meant for the cell before is dropped. Without a mark every interrupt is the cell's.
        """
        signal.signal(signal.SIGINT, self._on_interrupt)  # the last cell may have changed it
        self._mark = mark
        self._early.update(self._read())
        self._is_armed = True
        was_interrupted = mark in self._early
        self._early.clear()
        if was_interrupted:
            raise KeyboardInterrupt

    def disarm(self) -> None:
        """Let no interrupt through: the cell is over."""
        self._is_armed = False

    def force(self) -> None:
        """Interrupt the cell, from another thread, and what it has started: a client asked for it."""
        self._is_forced = True
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(os.getpid(), signal.SIGINT)
        for wait_s in _AGAIN_S:  # as init does, and for its reason: see `init.interrupt_again`
            time.sleep(wait_s)
            if not self._is_forced:
                return
            os.kill(os.getpid(), signal.SIGINT)

    def guard(
        self, handler: Callable[[int, FrameType | None], Any]
    ) -> Callable[[int, FrameType | None], Any]:
        """Return a handler of SIGINT that hears only what init has announced."""

        def guarded(number: int, stack: FrameType | None) -> None:
            if self._read():
                handler(number, stack)
                with suppress(RuntimeError):  # a loop that waits for events has not seen what it was told
                    asyncio.get_running_loop().call_soon_threadsafe(int)

        return guarded

    def before_fork(self) -> None:
        """Hold signals back until the child has its own handlers: one that ends it must not be lost."""
        self._masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _BOTH)

    def after_fork(self) -> None:
        """Let signals through again, in either process."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.pop(threading.get_ident(), ()))

    def become_child(self) -> None:
        """Behave like any program: for processes that the code forks, which init cannot tell apart."""
        for number, own, usual in (
            (signal.SIGTERM, _do_nothing, signal.SIG_DFL),
            (signal.SIGINT, self._on_interrupt, signal.default_int_handler),
        ):
            if signal.getsignal(number) == own:
                signal.signal(number, usual)
        self.after_fork()

    def _on_interrupt(self, number: int, stack: FrameType | None) -> None:
        tokens = self._read()
        if not self._is_armed:
            self._early.update(tokens)
        elif tokens and (self._mark is None or not tokens.isdisjoint((ANY_CELL, self._mark))):
            raise KeyboardInterrupt

    def _read(self) -> frozenset[int]:
        """Return whom init, or a client, has interrupted since the last call."""
        forced = frozenset((ANY_CELL,)) if self._is_forced else frozenset()
        self._is_forced = False
        try:
            return forced | frozenset(os.read(self._pipe, 64))
        except BlockingIOError:
            return forced


def _do_nothing(number: int, stack: FrameType | None) -> None:
    """Outlive a signal from outside."""
