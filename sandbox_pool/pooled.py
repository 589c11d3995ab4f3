"""What a pool needs of whoever starts sandboxes for it, and of the sandboxes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from sandbox_pool.config import PoolConfig
from sandbox_pool.host.capacity import Bound
from sandbox_pool.interface import Sandbox, SandboxSpec
from sandbox_pool.pool_state import Kind
from sandbox_pool.sandbox import Life


class PooledSandbox(Sandbox, Protocol):
    """A sandbox as its pool sees it."""

    listener: Callable[[Life], None]
    """Called from the event loop, at most once with each; must not raise. Set once the start is over."""

    @property
    def is_alive(self) -> bool:
        """Whether a cell can still be executed."""
        ...

    def is_fit(self) -> bool:
        """Whether a cell can still be executed, asked of the system; cheap."""
        ...

    async def prepare(self, spec: SandboxSpec) -> None:
        """Make a sandbox of the spec's kind into the one that is asked for, before its first cell.

        Raises:
            SandboxSetupError: the setup cell failed.
            SandboxStartError: the sandbox broke, by no fault of the setup cell; another may do.
            SandboxClosed: it was closed meanwhile.
        """
        ...


class Starter(Protocol):
    """Starts sandboxes; holds what they share."""

    @property
    def tier(self) -> str:
        """How the sandboxes are held, for a run's record."""
        ...

    def bound(self) -> Bound:
        """Return how many sandboxes there is room for, whatever the config says; asked once, at the start.

        Raises:
            UnsupportedHost: there is room for none.
        """
        ...

    def capabilities(self) -> dict[str, Any]:
        """Return what the sandboxes are held by, for a run's record."""
        ...

    async def start(self, number: int, kind: Kind) -> PooledSandbox:
        """Start a sandbox. Leaves nothing behind when it raises or is cancelled.

        Args:
            number: of all of the pool, never the same twice.
            kind: a profile that the config has, and a folder to show, by absolute path.

        Raises:
            SandboxStartError: it did not come up; another may.
            UnsupportedHost: this machine cannot start any of this kind.
        """
        ...

    async def close(self) -> None:
        """Give all back, after the last sandbox is closed. Not cancelled by the pool."""
        ...


class OpenStarter(Protocol):
    """What a pool calls when it opens."""

    def __call__(self, config: PoolConfig, *, trusted_code: bool) -> Awaitable[Starter]:
        """Make what sandboxes share; nothing is left behind when it raises or is cancelled.

        Raises:
            UnsupportedHost: this machine cannot run sandboxes of this config.
        """
        ...
