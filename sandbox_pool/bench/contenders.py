"""Who is measured: each starts kernels with the same imports done, runs cells in them, and ends them.

All run the same interpreter and packages; numerical libraries get one thread in each. Peers are used as
their documentation says; where that leaves a choice, it is made in their favour (one zmq context for all
kernels, no heartbeat). A kernel counts as started when its imports are done, and it can be seen to be.
"""

from __future__ import annotations

import os
import queue
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import zmq.asyncio
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.manager import AsyncKernelManager

from sandbox_pool.config import PoolConfig, n_cores
from sandbox_pool.errors import SandboxError, SandboxStartError
from sandbox_pool.interface import DEFAULT_SPEC, Sandbox, SandboxSpec
from sandbox_pool.observation import Status
from sandbox_pool.pool import SandboxPool

PRELOAD = ("numpy", "pandas", "matplotlib.pyplot")
IMPORTS = f"import {', '.join(PRELOAD)}"
MAX_SANDBOXES = 300
START_TIMEOUT_S = 120.0
CELL_TIMEOUT_S = 60.0


class Kernel(Protocol):
    """A started kernel."""

    async def run(self, code: str) -> str | None:
        """Run one cell to its end and return the text of its value.

        Raises:
            SandboxError: it did not end well.
        """
        ...


class Contender(Protocol):
    """One way to have kernels."""

    name: str

    @property
    def max_starting(self) -> int:
        """How many starts at once serve it best."""
        ...

    def open(self) -> AbstractAsyncContextManager[None]:
        """Make what its kernels share, with caches warm, for the length of a block."""
        ...

    def kernel(self) -> AbstractAsyncContextManager[Kernel]:
        """Start a kernel, and end it at the end of the block.

        Raises:
            SandboxError: it did not start.
        """
        ...


class Leased:
    """A sandbox of the pool."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def run(self, code: str) -> str | None:
        """See `Kernel`."""
        observation = await self._sandbox.execute(code, timeout_s=CELL_TIMEOUT_S)
        if observation.status is not Status.OK:
            raise SandboxError(f"the cell {code!r} ended with {observation.status}: {observation.error}")
        return observation.result


class Ours:
    """The pool, through its public interface. Keeps none ready unless `config` says so: each is a miss."""

    name = "ours"
    max_starting = MAX_SANDBOXES  # it bounds its starts itself

    def __init__(self, config: PoolConfig, spec: SandboxSpec = DEFAULT_SPEC) -> None:
        self._config = config
        self._spec = spec
        self._pool: SandboxPool | None = None
        self.open_s: list[float] = []
        """How long it took each time from nothing, zygote and imports included, to the first sandbox."""

    @property
    def pool(self) -> SandboxPool:
        """The pool, while open."""
        assert self._pool is not None, "use `async with ours.open()`"
        return self._pool

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See `Contender`."""
        began_at = time.perf_counter()
        async with SandboxPool(self._config) as self._pool:
            async with self.kernel():
                self.open_s.append(time.perf_counter() - began_at)
            yield

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[Leased]:
        """See `Contender`."""
        async with self.pool.acquire(self._spec) as sandbox:
            yield Leased(sandbox)


class ColdKernel:
    """A kernel of jupyter_client's own."""

    def __init__(self, client: AsyncKernelClient) -> None:
        self._client = client

    async def run(self, code: str) -> str | None:
        """See `Kernel`. Done when both the reply and iopub's idle are there, as jupyter_client does it."""
        values: list[str] = []

        def hear(message: dict[str, Any]) -> None:
            if message["msg_type"] == "execute_result":
                values.append(message["content"]["data"]["text/plain"])

        reply = await self._client.execute_interactive(
            code, store_history=False, allow_stdin=False, timeout=CELL_TIMEOUT_S, output_hook=hear
        )
        if reply["content"]["status"] != "ok":
            raise SandboxError(f"the cell {code!r} failed: {reply['content'].get('evalue')}")
        return values[-1] if values else None


class ColdKernels:
    """A cold ipykernel for each, by jupyter_client's AsyncKernelManager and AsyncKernelClient.

    With `waits`, as start_new_async_kernel does it: wait_for_ready(), of which 0.2 s are always spent on
    listening to nothing, then the imports. Without, the least that a client can get away with: the imports
    are sent before the kernel listens, and it has started with their reply and any word on iopub.
    """

    def __init__(self, folder: Path, *, waits: bool = True) -> None:
        """`folder` takes their caches and connection files."""
        self.name = "cold kernel" if waits else "cold kernel without wait_for_ready"
        self._folder = folder
        self._waits = waits
        self._context: zmq.asyncio.Context | None = None
        self._is_warm = False

    @property
    def max_starting(self) -> int:
        """See `Contender`."""
        return max(2, n_cores())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See `Contender`."""
        self._context = zmq.asyncio.Context()
        self._context.set(zmq.MAX_SOCKETS, 8192)
        try:
            if not self._is_warm:
                async with self.kernel():  # bytecode, IPython's profile, matplotlib's fonts
                    self._is_warm = True
            yield
        finally:
            self._context.destroy(linger=0)

    @asynccontextmanager
    async def kernel(self) -> AsyncIterator[ColdKernel]:
        """See `Contender`."""
        connection_file = str(self._folder / f"{uuid4().hex}.json")
        manager = AsyncKernelManager(connection_file=connection_file, context=self._context)
        try:
            await manager.start_kernel(
                env=peer_environment(self._folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            client = manager.client(context=self._context)
            client.start_channels(stdin=False, hb=False)
            try:
                kernel = ColdKernel(client)
                await (_import_patiently(client, kernel) if self._waits else _import_at_once(client))
                yield kernel
            finally:
                client.stop_channels()
        finally:
            await manager.shutdown_kernel(now=True)


def peer_environment(folder: Path) -> dict[str, str]:
    """Return the variables of a peer's kernel: this process's, one thread per library, caches in `folder`."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "NUMEXPR_NUM_THREADS": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }


async def _import_patiently(client: AsyncKernelClient, kernel: ColdKernel) -> None:
    try:
        await client.wait_for_ready(timeout=START_TIMEOUT_S)
        await kernel.run(IMPORTS)
    except (RuntimeError, TimeoutError, SandboxError) as error:
        raise SandboxStartError(f"a cold kernel cannot {IMPORTS}: {error}") from error


async def _import_at_once(client: AsyncKernelClient) -> None:
    try:
        reply = await client.execute(IMPORTS, reply=True, timeout=START_TIMEOUT_S)
    except TimeoutError as error:
        raise SandboxStartError(f"a cold kernel did not reply in {START_TIMEOUT_S:g} s") from error
    if reply["content"]["status"] != "ok":
        raise SandboxStartError(f"a cold kernel cannot {IMPORTS}: {reply['content'].get('evalue')}")
    while True:
        try:
            await client.get_iopub_msg(timeout=0.1)
        except queue.Empty:  # the subscription was late: jupyter_client#593
            await client.kernel_info(reply=True, timeout=START_TIMEOUT_S)
        else:
            return
