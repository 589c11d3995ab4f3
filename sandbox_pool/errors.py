"""What can go wrong with a sandbox, apart from what the code in it does.

SandboxError
├── SandboxStartError           a kernel did not come up
├── SandboxSetupError           the setup cell of a sample failed
├── UnknownProfile (ValueError) the config has no profile of that name
├── SandboxFault                a sandbox broke by our fault while it was in use
├── SandboxClosed               used after close()
├── PoolTimeout (TimeoutError)  no sandbox became free in acquire_timeout_s
├── SandboxPathError (ValueError)  a path that leaves the working directory
└── UnsupportedHost             this machine cannot run what was asked for

An exception in the model's own code is none of these: it is an Observation.
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of all errors of the sandbox pool: ours to answer for, never the model's."""


class SandboxStartError(SandboxError):
    """A kernel did not come up; the message holds the end of what it wrote."""


class SandboxSetupError(SandboxError):
    """A setup cell failed; the message holds the end of its traceback."""


class UnknownProfile(SandboxError, ValueError):  # noqa: N818 - named for the state, as in anyio
    """The config has no profile of that name; the message lists those that it has."""


class SandboxFault(SandboxError):  # noqa: N818 - the word of Status.SANDBOX_FAULT
    """A sandbox broke in a way that the code in it did not cause."""


class SandboxClosed(SandboxError):  # noqa: N818 - named for the state, as in anyio
    """The sandbox or the pool was used after close()."""


class PoolTimeout(SandboxError, TimeoutError):  # noqa: N818 - named for the state, as in anyio
    """No sandbox became free within acquire_timeout_s."""


class SandboxPathError(SandboxError, ValueError):
    """A path that is absolute, leaves the working directory or is no usable name."""


class UnsupportedHost(SandboxError):  # noqa: N818 - named for the state, as in anyio
    """This machine cannot run sandboxes as asked; the message says what would help."""
