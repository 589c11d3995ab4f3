"""What the driver needs of workers elsewhere, and of the nodes that they run on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Protocol

from runner.cluster.messages import Batch
from runner.errors import ClusterError


class WorkerUnavailable(ClusterError):  # noqa: N818 - named for the state, as in anyio
    """A worker does not answer; perhaps for a moment only."""


class WorkerLost(ClusterError):  # noqa: N818 - named for the state, as in anyio
    """A worker is gone for good, with its process or its node."""


class WorkerLink(Protocol):
    """A worker on a node."""

    async def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of `Worker` and return its result, or raise its error.

        Raises:
            WorkerUnavailable, WorkerLost: nobody knows whether the method was called.
        """
        ...

    def messages(self, after: int) -> AsyncGenerator[Batch, None]:
        """Yield what the worker says behind a message. Raises as `call` does."""
        ...

    def kill(self) -> None:
        """End the worker's process, now, if it is still there. Idempotent."""


class Fleet(Protocol):
    """The nodes of a cluster."""

    async def nodes(self) -> list[str]:
        """Return the names of the nodes that may have a worker now."""
        ...

    async def launch(self, node: str) -> WorkerLink:
        """Start a worker there. Raises ClusterError."""
        ...
