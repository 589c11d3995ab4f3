"""The end of an actor's process with the raylet that started it."""

from __future__ import annotations

import os
import select
import threading

VARIABLE = "RAY_RAYLET_PID"
"""Set by Ray for its workers."""


def end_with_raylet() -> None:
    """End this process, whatever it is doing, as soon as its raylet has ended.

    To the cluster its node is lost then, and others have its work. Ray's own watch over a raylet that was
    killed may let actors live for minutes, with their sandboxes and their GPUs.
    """
    try:
        raylet = os.pidfd_open(int(os.environ.get(VARIABLE) or os.getppid()))
    except ProcessLookupError:
        os._exit(1)
    threading.Thread(target=_end_after, args=(raylet,), name="end-with-raylet", daemon=True).start()


def _end_after(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll()
    os._exit(1)
