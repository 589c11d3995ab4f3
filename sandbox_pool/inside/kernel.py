"""The lean kernel: Jupyter's messages around IPython's shell, in one thread.

`prepare` runs in the zygote, before any fork; `run` is what a forked process becomes, with all protections
on. A cell costs half a millisecond here and 4 ms in ipykernel, which stays selectable (`ipykernel_app`).
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from sandbox_pool.inside import libraries
from sandbox_pool.inside.frames import Pipes, moved
from sandbox_pool.inside.front import Front, OutStream
from sandbox_pool.inside.interrupts import Interrupts
from sandbox_pool.inside.private import PrivateFront

if TYPE_CHECKING:
    from sandbox_pool.inside.shell import ZMQInteractiveShell

_template: ZMQInteractiveShell | None = None
"""The shell that every kernel of this zygote is a copy of."""

_own_modules: list[str] = []
"""What user code must not find; listed before the fork, as looking through sys.modules touches every page."""


def prepare(kind: str) -> None:
    """Load everything that a kernel of this kind ("lean" or "ipykernel") needs.

    Call it in the zygote, after the preload list, before gc.freeze and any fork. Leaves one thread, no open
    descriptor, and in the shell nothing of the cells that it runs. Raises ImportError without IPython.
    """
    global _template
    if kind == "ipykernel":
        from sandbox_pool.inside import ipykernel_app

        ipykernel_app.prepare()
        libraries.unsettle()
        return
    from sandbox_pool.inside import service, template  # noqa: F401 - no kernel could import it later

    _template = template.make_template()
    libraries.unsettle()
    if importlib.util.find_spec("zmq"):  # else there can be no Jupyter client either
        importlib.import_module("sandbox_pool.inside.jupyter")
    _own_modules[:] = [name for name in sys.modules if name.partition(".")[0] == "sandbox_pool"]


def run(
    start: dict[str, Any], *, channel: int, stdout: int, stderr: int, interrupt: int, listeners: list[int]
) -> int:
    """Be a kernel until the manager hangs up or a request ends it; return the exit status.

    `start` is the manager's start line. Descriptors 1 and 2 are the pipes `stdout` and `stderr` already.
    Owns all descriptors given. The caller ends the process with os._exit: no thread may delay it.
    """
    gc.enable()
    channel, interrupt, stdout, stderr = map(moved, (channel, interrupt, stdout, stderr))
    if _template is None:
        _be_ipykernel(start, channel, interrupt, listeners)
        return 0
    from sandbox_pool.inside.frames import ChannelClosed
    from sandbox_pool.inside.service import Service

    interrupts = Interrupts(interrupt)
    interrupts.install()
    front = make_front(start, channel, [stdout, stderr], interrupts, listeners)
    os.register_at_fork(after_in_child=front.become_child)
    os.register_at_fork(
        before=interrupts.before_fork,
        after_in_parent=interrupts.after_fork,
        after_in_child=interrupts.become_child,
    )
    settle(_template, front, start.get("seed"))
    service = Service(_template, front, interrupts)
    try:
        front.say_ready()
        service.serve()
        front.close()
    except ChannelClosed:
        pass
    return 0


def make_front(
    start: dict[str, Any], channel: int, pipes: list[int], interrupts: Interrupts, listeners: list[int]
) -> Front:
    """Return what the manager asked for."""
    if start["front"] == "jupyter":
        from sandbox_pool.inside.jupyter import JupyterFront

        return JupyterFront(listeners, start.get("key") or "", channel, interrupts)
    return PrivateFront(channel, Pipes(pipes), max_message_chars(start))


def _be_ipykernel(start: dict[str, Any], channel: int, interrupt: int, listeners: list[int]) -> None:
    from sandbox_pool.inside import ipykernel_app

    tempfile.tempdir = None
    libraries.reseed(start.get("seed"))
    find_installed_packages()
    ipykernel_app.run(start, channel, interrupt, listeners)


def settle(shell: ZMQInteractiveShell, front: Front, seed: int | None) -> None:
    """Make this process the cells' own: their streams, folders, randomness, and nothing of ours to import."""
    from sandbox_pool.inside.stand_ins import redirect_input

    shell.front = front
    redirect_input(front)
    sys.stdout, sys.stderr = OutStream("stdout", 1, front), OutStream("stderr", 2, front)
    os.environ.setdefault("PAGER", "cat")  # no command may wait for a key
    os.environ.setdefault("GIT_PAGER", "cat")
    tempfile.tempdir = None  # it remembers the zygote's
    shell.move_in()
    libraries.reseed(seed)
    sys.argv = [""]
    find_files_of_cells()
    find_installed_packages()
    for name in _own_modules:
        sys.modules.pop(name, None)


def find_files_of_cells() -> None:
    """Let modules that the code writes be imported, from where ipykernel has its folder on the path.

    That is behind the standard library: a `calendar.py` of the code must not break a library.
    """
    if "" not in sys.path:
        sys.path.insert(first_packages(), "")


def find_installed_packages() -> None:
    """Let packages that pip installs in this sandbox be imported, before the interpreter's own."""
    place = first_packages()
    for folder in filter(None, os.environ.get("SANDBOX_PACKAGES", "").split(os.pathsep)):
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - the import system remembers what is not there
        sys.path.insert(place, folder)


def first_packages() -> int:
    """Return where on sys.path the standard library ends."""
    folders = [entry.rpartition("/")[2] for entry in sys.path]
    places = [n for n, name in enumerate(folders) if name in ("site-packages", "dist-packages")]
    return places[0] if places else 0


def max_message_chars(start: dict[str, Any]) -> int | None:
    """Return at which length a result is cut off, where the manager says so."""
    sizes = start.get("max_sizes")
    return int(sizes[1]) if sizes else None
