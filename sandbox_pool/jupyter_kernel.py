"""A sandbox whose kernel Jupyter's own clients talk to: started and ended by us, used by others."""

from __future__ import annotations

import signal

from sandbox_pool.sandbox import KernelSandbox


class JupyterKernel(KernelSandbox):
    """Started by a SandboxStarter, ended by `close`; cells come to it over its sockets, not by `execute`.

    What a kernel writes past its sockets is read and dropped.
    """

    @property
    def exit_status(self) -> int | None:
        """The kernel's exit code, or minus the number of the signal that ended it; None while it runs.

        May be asked from any thread.
        """
        lifeline = self._held()
        if lifeline.is_alive:
            return None
        return -signal.SIGKILL if lifeline.exit_status is None else lifeline.exit_status

    def interrupt(self) -> None:
        """Interrupt the cell that runs, and the programs it has started; nothing happens when none runs."""
        self._held().interrupt()

    async def wait_for_end(self) -> None:
        """Wait until none of its processes is left."""
        while self.exit_status is None:
            await self.heard.something()
