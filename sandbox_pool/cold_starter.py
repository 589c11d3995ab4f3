"""Sandboxes that are each a process of their own with ipykernel in it, started cold, of one kind only."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

import zmq

from sandbox_pool.config import PoolConfig
from sandbox_pool.decisions import Kind
from sandbox_pool.errors import SandboxSetupError, SandboxStartError
from sandbox_pool.host import UidRange, make_scratch, raise_descriptor_limit, remove_tree, sandbox_uids
from sandbox_pool.interface import SandboxSpec
from sandbox_pool.observation import Status
from sandbox_pool.pooled import Bound, PooledSandbox
from sandbox_pool.sandbox import KernelSandbox
from sandbox_pool.settings import Identity, home_of
from sandbox_pool.threads import in_thread

logger = logging.getLogger(__name__)

_SEED = "import random, numpy; random.seed({0}); numpy.random.seed({0}); del random, numpy"


class ColdSandbox(KernelSandbox):
    """A KernelSandbox that is prepared by ordinary cells."""

    async def prepare(self, spec: SandboxSpec) -> None:
        """See `pooled.PooledSandbox`."""
        seed = [] if spec.seed is None else [_SEED.format(spec.seed % 2**32)]
        for code in [*seed, *([] if spec.setup is None else [spec.setup])]:
            observation = await self.execute(code, timeout_s=self._config.start_timeout_s)
            if observation.status is Status.SANDBOX_FAULT:
                raise SandboxStartError("a kernel died before its setup cell")
            if observation.status is not Status.OK:
                raise SandboxSetupError(f"setup cell failed ({observation.status}): {observation.error}")


class ColdStarter:
    """Starts ColdSandboxes; see `pooled.Starter`. `open_cold` makes one."""

    tier = "process"

    def __init__(self, config: PoolConfig, uids: UidRange | None, scratch: Path, scratch_lock: int) -> None:
        self._config = config
        self._uids = uids
        self._scratch = scratch
        self._scratch_lock = scratch_lock
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4 * config.max_sandboxes + 64)

    def bound(self) -> Bound:
        """See `pooled.Starter`."""
        return Bound(self._config.max_sandboxes, "this starter counts nothing")

    async def start(self, number: int, kind: Kind) -> PooledSandbox:
        """See `pooled.Starter`. All kinds are the same here."""
        identity = Identity(*self._uids.pair(number)) if self._uids else None
        sandbox = ColdSandbox(self._config, home_of(self._scratch, number), identity)
        try:
            await sandbox.start(self._context)
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def close(self) -> None:
        """See `pooled.Starter`."""
        self._context.destroy(linger=0)
        try:
            await in_thread(partial(remove_tree, self._scratch))
        except OSError as error:  # no reason to fail a run that is over
            logger.warning("scratch folder is left behind: path=%s error=%s", self._scratch, error)
        os.close(self._scratch_lock)


async def open_cold(config: PoolConfig, *, trusted_code: bool) -> ColdStarter:
    """See `pooled.OpenStarter`."""
    raise_descriptor_limit()
    uids = sandbox_uids()
    scratch, lock = await in_thread(partial(make_scratch, config.scratch, for_other_uids=uids is not None))
    return ColdStarter(config, uids, scratch, lock)
