"""The descriptors that connect one sandbox with its manager."""

from __future__ import annotations

import os
import socket
from pathlib import Path

_N_LISTENERS = 5
"""Sockets that a kernel of Jupyter's binds: shell, iopub, stdin, control, heartbeat."""


class Ends:
    """Our ends and those that the sandbox gets, in the order in which `inside/zygote.py` takes them.

    `close` closes what was neither kept nor given away. Raises OSError when this process may open no more.

    Args:
        sockets_at: what the paths of the kernel's sockets begin with, for a kernel that Jupyter's clients
            talk to; they are bound here, so that no folder of this machine is writable from inside.
    """

    def __init__(self, sockets_at: Path | None) -> None:
        self._theirs: list[socket.socket | int] = []
        self._ours: list[socket.socket | int] = []
        self.n_listeners = 0
        try:
            self.control = self._pair()
            self.channel = self._pair()
            self.stdout = self._pipe()
            self.stderr = self._pipe()
            for number in range(1, _N_LISTENERS + 1) if sockets_at else ():
                self._listen(f"{sockets_at}-{number}")
        except OSError:
            self.close()
            raise

    def _pair(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self._ours.append(ours)
        self._theirs.append(theirs)
        return ours

    def _pipe(self) -> int:
        ours, theirs = os.pipe()
        self._ours.append(ours)
        self._theirs.append(theirs)
        return ours

    def _listen(self, path: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        self._theirs.append(listener)
        listener.bind(path)
        listener.listen(4)
        self.n_listeners += 1

    def theirs(self) -> list[int]:
        """Return the descriptors that the sandbox gets."""
        return [end if isinstance(end, int) else end.fileno() for end in self._theirs]

    def give_theirs_away(self) -> None:
        """Close our copies of what the sandbox has got."""
        _close(self._theirs)

    def keep_ours(self) -> None:
        """Leave ours to those who hold them now."""
        self._ours.clear()

    def close(self) -> None:
        """Close all that is still ours. Idempotent."""
        _close(self._theirs)
        _close(self._ours)


def _close(ends: list[socket.socket | int]) -> None:
    for end in ends:
        if isinstance(end, int):
            os.close(end)
        else:
            end.close()
    ends.clear()
