"""Which signals reach a cell: interrupts that the sandbox's init announced, and none from outside.

A drain of the runner must not be cut short by a signal to the whole process tree. So SIGTERM does nothing
(by a handler, not by ignoring it: children must get the default), and SIGINT counts only with a byte in the
pipe that init writes to just before it signals.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


class Interrupts:
    """The kernel's signal handlers. For the main thread. Owns the read end given to it."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._is_armed = False
        os.set_blocking(pipe, False)

    def install(self) -> None:
        """Take over both signals."""
        signal.signal(signal.SIGTERM, _do_nothing)
        signal.signal(signal.SIGINT, self._on_interrupt)

    def arm(self) -> None:
        """Let interrupts through: a cell begins. One that came too late for the last cell is dropped."""
        self._has_token()
        signal.signal(signal.SIGINT, self._on_interrupt)  # the last cell may have changed it
        self._is_armed = True

    def disarm(self) -> None:
        """Let no interrupt through: the cell is over."""
        self._is_armed = False

    def become_child(self) -> None:
        """Behave like any program: for processes that the code forks, which init cannot tell apart."""
        for number, own, usual in (
            (signal.SIGTERM, _do_nothing, signal.SIG_DFL),
            (signal.SIGINT, self._on_interrupt, signal.default_int_handler),
        ):
            if signal.getsignal(number) == own:
                signal.signal(number, usual)

    def _on_interrupt(self, number: int, stack: FrameType | None) -> None:
        if self._has_token() and self._is_armed:
            raise KeyboardInterrupt

    def _has_token(self) -> bool:
        try:
            return bool(os.read(self._pipe, 64))
        except OSError:
            return False


def _do_nothing(number: int, stack: FrameType | None) -> None:
    """Outlive a signal from outside."""
