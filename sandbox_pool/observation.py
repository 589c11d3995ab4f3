"""What a sandbox returns for one cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Status(StrEnum):
    """How a cell ended. Only `sandbox_fault` is ours; all others are what the code did."""

    OK = "ok"
    ERROR = "error"
    """It raised; a MemoryError or ENOSPC that it saw itself is this, with `limits_hit`."""

    TIMEOUT = "timeout"
    """It passed its deadline and was interrupted, or killed when that did not help."""

    CPU_LIMIT = "cpu_limit"
    MEMORY = "memory"
    """Killed for memory."""

    DISK = "disk"
    PIDS = "pids"
    OUTPUT_LIMIT = "output_limit"
    """It wrote more than `max_output_bytes` and was interrupted, or killed when that did not help."""

    DIED = "died"
    """The kernel process ended by itself: os._exit, a signal, a crash in native code."""

    PROTOCOL = "protocol"
    """The kernel sent what no kernel sends, or only one of the two signs of completion."""

    SANDBOX_FAULT = "sandbox_fault"


@dataclass(frozen=True, slots=True)
class Stream:
    """Text written to stdout or stderr."""

    name: Literal["stdout", "stderr"]
    text: str
    type: Literal["stream"] = "stream"


@dataclass(frozen=True, slots=True)
class Result:
    """The value of the cell's last expression, by MIME type; pictures as bytes, all else as text."""

    data: Mapping[str, str | bytes]
    type: Literal["result"] = "result"


@dataclass(frozen=True, slots=True)
class Display:
    """What display() showed (a figure, for one), by MIME type; pictures as bytes, all else as text."""

    data: Mapping[str, str | bytes]
    type: Literal["display"] = "display"


@dataclass(frozen=True, slots=True)
class Error:
    """The exception that ended the cell. `traceback` has no colour codes."""

    ename: str
    evalue: str
    traceback: str
    type: Literal["error"] = "error"


Output = Stream | Result | Display | Error


@dataclass(frozen=True, slots=True)
class Observation:
    """What one cell did, in the order in which it did it."""

    status: Status
    outputs: tuple[Output, ...] = ()
    limits_hit: tuple[str, ...] = ()
    """Limits that the cell ran into and saw as an exception: `memory`, `disk`, `pids`."""

    truncated: bool = False
    """Whether output is missing from `outputs` because it passed a limit; a marker stands for it."""

    duration_s: float = 0.0
    n_output_bytes: int = 0
    """Bytes of output that the cell produced, kept or not."""

    peak_memory_bytes: int | None = None
    """Most memory that the sandbox held at once so far, where the system counts it."""

    kernel_alive: bool = True
    """Whether the kernel can execute another cell, with its state as the cell left it."""

    @property
    def stdout(self) -> str:
        """All text written to stdout."""
        return "".join(o.text for o in self.outputs if isinstance(o, Stream) and o.name == "stdout")

    @property
    def stderr(self) -> str:
        """All text written to stderr."""
        return "".join(o.text for o in self.outputs if isinstance(o, Stream) and o.name == "stderr")

    @property
    def result(self) -> str | None:
        """The plain text of the last expression's value, or None."""
        for output in reversed(self.outputs):
            if isinstance(output, Result):
                text = output.data.get("text/plain")
                return text if isinstance(text, str) else None
        return None

    @property
    def error(self) -> Error | None:
        """The exception that ended the cell, or None."""
        return next((o for o in reversed(self.outputs) if isinstance(o, Error)), None)
