"""What can go wrong in a run.

RunnerError
├── ConfigError (ValueError)   the command line or the config file; names the key
│   └── RunMismatch            the run directory holds a run of another configuration
├── JournalError               a file of the run directory cannot be read or written
│   ├── DiskFull               there is no space left for it
│   └── RunDirInUse            another runner holds the run directory
├── EngineError                an engine that we host
│   ├── EngineStartError       it did not come up; holds the end of its log
│   └── AllEnginesLost         none is left, and none will be started again
├── ClusterError               a Ray cluster, or a worker on it
├── Interrupted                a signal came before the run had begun
└── ModelError                 the model server did not give a completion
    ├── ContextOverflow        the conversation no longer fits the model's window
    ├── ModelRefused           the server refused the request for good (4xx)
    ├── ModelUnavailable       no usable answer after all retries: the engine's fault
    └── ReplayEnded            a recorded run has no further message

What the model does wrong is none of these: it is a StopReason (records.py) or an Observation.
"""

from __future__ import annotations

import errno
import signal
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunnerError(Exception):
    """Base of all errors of the runner; its message is fit to show to a user."""


class ConfigError(RunnerError, ValueError):
    """The command line or the config file asks for something that cannot be done."""


class RunMismatch(ConfigError):  # noqa: N818 - named for the state, as in anyio
    """Resuming would mix results of two configurations in one run directory."""


class JournalError(RunnerError):
    """A file of the run directory is unreadable, foreign, locked or cannot be written."""


class DiskFull(JournalError):  # noqa: N818 - named for the state, as in anyio
    """No space is left for a file of the run directory."""


class RunDirInUse(JournalError):  # noqa: N818 - named for the state, as in anyio
    """Another runner holds the run directory."""


class EngineError(RunnerError):
    """An engine that we host is not there, or cannot be."""


class EngineStartError(EngineError):
    """An engine did not come up. The message says why, as far as the log does, and ends with that log."""


class AllEnginesLost(EngineError):  # noqa: N818 - named for the state, as in anyio
    """No engine is left, and none will be started again; the message ends with the last one's log."""


class ClusterError(RunnerError):
    """A Ray cluster cannot be used, or a worker on it broke."""


class Interrupted(RunnerError):  # noqa: N818 - named for the state, as in anyio
    """A signal came before the run had begun. Nothing was recorded, and nothing of it is left running."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"stopped by {name} before the run had begun; run the same command again")
        self.number = number


class ModelError(RunnerError):
    """The model gave no completion."""


class ContextOverflow(ModelError):  # noqa: N818 - named for the state, as in anyio
    """The conversation and the reply do not fit the model's context window."""


class ModelRefused(ModelError):  # noqa: N818 - named for the state, as in anyio
    """The server refused the request; the same request would be refused again."""


class ModelUnavailable(ModelError):  # noqa: N818 - named for the state, as in anyio
    """The server gave no usable answer after all retries."""


class ReplayEnded(ModelError):  # noqa: N818 - named for the state, as in anyio
    """A recorded run holds no further message for this attempt."""


def write_error(path: Path, error: OSError) -> JournalError:
    """Return the error for a file of the run directory that cannot be written."""
    if error.errno in DISK_FULL:
        remedy = "free some space and run the same command again: finished trajectories are kept"
        return DiskFull(f"cannot write {path}: {error.strerror}; {remedy}")
    remedy = "check that the folder exists and may be written"
    return JournalError(f"cannot write {path}: {error.strerror or error}; {remedy}")


def first_error(error: BaseException) -> BaseException:
    """Return the error itself, or the first one in a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
