"""Stateful Jupyter kernels in processes of their own, for code that a model wrote.

async with SandboxPool() as pool, pool.acquire() as sandbox:
    observation = await sandbox.execute("print(6 * 7)", timeout_s=10)
"""

from sandbox_pool.collect import CollectedFile
from sandbox_pool.config import PoolConfig
from sandbox_pool.errors import (
    PoolTimeout,
    SandboxClosed,
    SandboxError,
    SandboxFault,
    SandboxPathError,
    SandboxSetupError,
    SandboxStartError,
    UnknownProfile,
    UnsupportedHost,
)
from sandbox_pool.fake import FakePool, FakeSandbox
from sandbox_pool.host.probe import probe
from sandbox_pool.interface import DEFAULT_SPEC, Pool, Sandbox, SandboxSpec
from sandbox_pool.observation import Display, Error, Observation, Output, Result, Status, Stream
from sandbox_pool.pool import PoolStatistics, SandboxPool
from sandbox_pool.sandbox import KernelSandbox

__all__ = [
    "DEFAULT_SPEC",
    "CollectedFile",
    "Display",
    "Error",
    "FakePool",
    "FakeSandbox",
    "KernelSandbox",
    "Observation",
    "Output",
    "Pool",
    "PoolConfig",
    "PoolStatistics",
    "PoolTimeout",
    "Result",
    "Sandbox",
    "SandboxClosed",
    "SandboxError",
    "SandboxFault",
    "SandboxPathError",
    "SandboxPool",
    "SandboxSetupError",
    "SandboxSpec",
    "SandboxStartError",
    "Status",
    "Stream",
    "UnknownProfile",
    "UnsupportedHost",
    "probe",
]
