"""What IPython and libraries expect of their surroundings and a kernel has in a simpler form."""

# IPython's classes are typed in part, and its traits not at all
# mypy: disable-error-code="no-untyped-call, union-attr, override, attr-defined, arg-type"

from __future__ import annotations

import builtins
import getpass
import os
from pathlib import Path
from typing import Any

from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.core.profiledir import ProfileDir

from sandbox_pool.inside.displays import flush_streams
from sandbox_pool.inside.front import Front


def home_folder() -> str:
    """Return HOME, or where a user without one has it."""
    return os.environ.get("HOME") or str(Path.home())


def ipython_folder() -> str:
    """Return where IPython keeps things."""
    return os.environ.get("IPYTHONDIR") or f"{home_folder()}/.ipython"


class NoProfile(ProfileDir):
    """A profile folder that is made by who writes into it, not at each start."""

    @property
    def location(self) -> str:
        """Where it would be: the zygote, which makes this object, has no home."""
        return f"{ipython_folder()}/profile_default"

    def check_dirs(self) -> None:
        """Make no folders."""


class KernelStub:
    """What libraries look for at `get_ipython().kernel`."""

    implementation = "ipython"

    def __init__(self, shell: Any) -> None:
        self.shell = shell

    def get_parent(self, channel: str | None = None) -> dict[str, Any]:
        """Return the request that the cell belongs to."""
        request = self.shell.front.request
        return {"header": request.header or {"msg_id": request.msg_id, "msg_type": request.type}}

    _parent_header = property(get_parent)

    @property
    def comm_manager(self) -> Any:
        """The comm package's: its comms talk to nobody, which widgets outlive."""
        import comm

        return comm.get_comm_manager()


def refuse_editor(line: str) -> None:
    """Open no editor: %edit."""
    raise UsageError("no editor can be opened here: write the file with %%writefile")


def redirect_input(front: Front) -> None:
    """Let input() and getpass() ask the front, which mostly cannot."""

    def raw_input(prompt: object = "") -> str:
        return _answer(front, "raw_input", str(prompt), is_secret=False)

    def secret(prompt: str = "Password: ", stream: Any = None, **_: Any) -> str:
        return _answer(front, "getpass", prompt, is_secret=True)

    builtins.input = raw_input
    getpass.getpass = secret


def _answer(front: Front, name: str, prompt: str, *, is_secret: bool) -> str:
    flush_streams()
    answer = front.ask(prompt, is_secret=is_secret)
    if answer is None:
        raise StdinNotImplementedError(
            f"{name} was called, but this frontend does not support input requests."
        )
    return answer
