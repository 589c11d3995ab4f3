"""A kernel provisioner for Jupyter: JupyterLab, nbclient and others start isolated kernels from a zygote.

A kernelspec chooses it in its kernel.json, which `python -m sandbox_pool kernelspec` writes:

    "metadata": {"kernel_provisioner": {"provisioner_name": "kernelfleet", "config": {"sandbox": {...}}}}

`sandbox` takes the keys of `PoolConfig`. Those of its profiles count, and how a sandbox is held; those
about a pool's idle sandboxes and about single cells have nothing to do here.

https://jupyter-client.readthedocs.io/en/stable/provisioning.html
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_client.session import Session
from pydantic import ValidationError
from traitlets import Dict

from sandbox_pool.config import PoolConfig
from sandbox_pool.jupyter.fleet import FleetKernel, fleet

_SIGNATURE_SCHEME = "hmac-sha256"
_ENDING = (signal.SIGTERM, signal.SIGKILL)


class KernelfleetProvisioner(KernelProvisionerBase):
    """Starts, interrupts and ends one kernel for a KernelManager, in a sandbox, over all its restarts.

    Clients reach it over ipc, whatever transport the manager is set to; each start is a fresh fork, at the
    same sockets. Of this process's environment the kernel sees what its kernel.json names under `env`. The
    folder that it is started in is what the code sees, read-only, as `workspace`.

    Args:
        parent: the KernelManager.
        sandbox: the settings in kernel.json, checked at the start.
    """

    sandbox = Dict()

    def __init__(self, **kwargs: Any) -> None:
        unknown = sorted(set(kwargs) - set(self.class_trait_names()))
        if unknown:
            raise ValueError(
                f"{_where(kwargs.get('kernel_spec'))} has unknown keys: {', '.join(unknown)}; put the "
                "settings of sandboxes under `sandbox`"
            )
        super().__init__(**kwargs)
        self._kernel: FleetKernel | None = None
        self._is_held = False
        self._config = PoolConfig()

    @property
    def has_process(self) -> bool:
        """Whether a kernel was started that has not been waited for."""
        return self._is_held

    @property
    def _session(self) -> Session:
        assert self.parent is not None, "made by a KernelManager, which is its parent"
        session: Session = self.parent.session
        return session

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Check the settings.

        Raises:
            ValueError: they are wrong; says which, and where they stand.
        """
        kwargs = await super().pre_launch(cmd=[], **kwargs)
        scheme = self._session.signature_scheme
        if scheme != _SIGNATURE_SCHEME:
            raise ValueError(
                f"kernels of Kernelfleet sign with {_SIGNATURE_SCHEME}, and Session.signature_scheme is "
                f"{scheme}: leave it out of Jupyter's config"
            )
        named = {name: kwargs["env"][name] for name in self.kernel_spec.env}
        self._config = read_config(self.sandbox, named, where=_where(self.kernel_spec))
        return kwargs

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork a kernel and return how to reach it, once it can be reached. `cmd` is of no use here.

        Raises:
            SandboxStartError: it did not come up, or there are too many.
            UnsupportedHost: this machine cannot hold it as asked; says what would help.
            NotADirectoryError: the folder to start it in is none.
        """
        folder = _existing(kwargs.get("cwd"))
        if self._kernel is None or not self._kernel.is_usable:
            self._kernel = fleet().new_kernel()
        session = self._session
        prefix = await self._kernel.start(self._config, folder=folder, key=session.key.decode())
        self._is_held = True
        self.connection_info = KernelConnectionInfo(
            transport="ipc",
            ip=str(prefix),
            shell_port=1,
            iopub_port=2,
            stdin_port=3,
            control_port=4,
            hb_port=5,
            key=cast(str, session.key),  # bytes, as the manager has it and compares it
            signature_scheme=_SIGNATURE_SCHEME,
        )
        return self.connection_info

    async def poll(self) -> int | None:
        """Return how the kernel ended, None while it runs, 0 when there is none."""
        return self._kernel.exit_status if self._is_held and self._kernel is not None else 0

    async def wait(self) -> int | None:
        """Wait for the kernel's end, remove what is left of it, and return how it ended."""
        if not self._is_held or self._kernel is None:
            return 0
        status = await self._kernel.wait()
        await self._kernel.end()
        self._is_held = False
        return status

    async def send_signal(self, signum: int) -> None:
        """Interrupt the kernel, for SIGINT; end it, for a signal that is meant to; 0 does nothing.

        Raises:
            ValueError: another signal, which does not reach into a sandbox.
        """
        if signum == signal.SIGINT:
            if self._kernel is not None:
                await self._kernel.interrupt()
        elif signum in _ENDING:
            await self.kill()
        elif signum != 0:
            raise ValueError(
                f"signal {signum} does not reach into a sandbox: SIGINT interrupts it, SIGTERM and SIGKILL "
                "end it"
            )

    async def kill(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - Jupyter's signature
        """End all processes of the sandbox."""
        if self._kernel is not None:
            await self._kernel.end()

    async def terminate(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - Jupyter's signature
        """As `kill`: a kernel that was asked to end, and has not, is given no say in it."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002 - Jupyter's signature
        """Leave nothing of the kernel."""
        await self.kill(restart)
        self._is_held = False


def read_config(sandbox: Mapping[str, Any], environment: Mapping[str, str], *, where: str) -> PoolConfig:
    """Return the config that a kernelspec asks for.

    Args:
        sandbox: its settings.
        environment: variables that kernels see besides; those of the settings go first.
        where: names the settings in errors.

    Raises:
        ValueError: a key is unknown, or its value is wrong; names it.
    """
    try:
        config = PoolConfig.model_validate(sandbox)
    except ValidationError as error:
        raise ValueError(f"{where}.sandbox{_problem(error)}") from error
    return config.model_copy(update={"environment": {**environment, **config.environment}})


def _existing(folder: str | os.PathLike[str] | None) -> Path | None:
    if not folder:
        return None
    path = Path(folder).absolute()
    if not path.is_dir():
        raise NotADirectoryError(f"a kernel is to start in {path}, which is no folder")
    return path


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    key = "".join(f".{part}" for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{key}: there is no such key; there are {', '.join(sorted(PoolConfig.model_fields))}{more}"
    return f"{key}: {first['msg'].removeprefix('Value error, ')}, got {first['input']!r}{more}"


def _where(kernel_spec: Any) -> str:
    folder = getattr(kernel_spec, "resource_dir", None)
    file = f"{folder}/kernel.json: " if folder else "kernel.json: "
    return f"{file}metadata.kernel_provisioner.config"
