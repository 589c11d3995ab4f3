"""Starts sandboxes: descriptors and limits for each, a fork of the right zygote, the wait for its kernel."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import zmq

from sandbox_pool import settings
from sandbox_pool.belongings import Belongings, Host, take_host
from sandbox_pool.channel import Channel, PrivateChannel
from sandbox_pool.config import PoolConfig, Profile
from sandbox_pool.ends import Ends
from sandbox_pool.errors import SandboxStartError, UnsupportedHost
from sandbox_pool.fork_server import ForkServer
from sandbox_pool.host.capacity import NEEDS, Bound, bound_of_sandboxes, read_resources
from sandbox_pool.jupyter_kernel import JupyterKernel
from sandbox_pool.lifeline import Lifeline
from sandbox_pool.pool_state import Kind
from sandbox_pool.sandbox import KernelSandbox
from sandbox_pool.threads import in_thread
from sandbox_pool.zmq_channel import ZmqChannel
from sandbox_pool.zygote import Zygote

S = TypeVar("S", bound=KernelSandbox)

_NUDGE_S = 0.05
_MAX_SERVERS = 8
"""Fork servers that are kept, each with a zygote of some 100 MB, while others are asked for."""


class SandboxStarter:
    """See `pooled.Starter`: starts real sandboxes. Owns the host's things; `close` gives them back."""

    def __init__(self, config: PoolConfig, host: Host) -> None:
        self._config = config
        self._host = host
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._servers: dict[tuple[str, Path | None], ForkServer] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._n_zygotes = 0

    @property
    def tier(self) -> str:
        """See `pooled.Starter`."""
        return self._host.tier

    @property
    def scratch(self) -> Path:
        """The folder of its sandboxes' sockets and files, which no sandbox may see as a whole."""
        return self._host.scratch

    def bound(self) -> Bound:
        """See `pooled.Starter`."""
        needs = [NEEDS[profile.kernel] for profile in self._host.profiles.values()]
        found = bound_of_sandboxes(read_resources(), max(needs, key=lambda need: need.memory_bytes))
        if found.n_sandboxes < 1:
            raise UnsupportedHost(f"this machine has no room for a sandbox: {found.reason}")
        return found

    def capabilities(self) -> dict[str, Any]:
        """See `pooled.Starter`."""
        return dict(self._host.capabilities)

    async def start(self, number: int, kind: Kind) -> KernelSandbox:
        """See `pooled.Starter`."""
        belongings = Belongings(self._host, number, self._host.profiles[kind.profile])
        return await self._start(KernelSandbox, belongings, kind)

    async def start_for_jupyter(self, number: int, kind: Kind, key: str) -> tuple[JupyterKernel, Path]:
        """Start a kernel that Jupyter's own clients talk to. Raises as `start` does.

        Args:
            number: of all that exist, never the same twice; the paths of the sockets follow from it.
            kind: see `start`.
            key: signs messages; empty: they are not signed.

        Returns:
            The kernel, and what the paths of its sockets begin with: `-1` shell, `-2` iopub, `-3` stdin,
            `-4` control, `-5` heartbeat.
        """
        belongings = Belongings(self._host, number, self._host.profiles[kind.profile], jupyter_key=key)
        kernel = await self._start(JupyterKernel, belongings, kind)
        assert belongings.sockets_at is not None
        return kernel, belongings.sockets_at

    def owner_of(self, number: int) -> int | None:
        """Return the uid that a sandbox of this number runs as; None: ours."""
        return Belongings(self._host, number, self._config).owner

    async def _start(self, make: type[S], belongings: Belongings, kind: Kind) -> S:
        sandbox = make(
            self._config,
            is_lean=belongings.profile.kernel == "lean",
            owner=belongings.owner,
            remove=belongings.remove,
        )
        limit_s = self._config.start_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._bring_up(sandbox, belongings, kind)
        except TimeoutError:
            await sandbox.close()
            raise SandboxStartError(
                f"a kernel did not answer in {limit_s:g} s (start_timeout_s); "
                f"it wrote: {sandbox.heard.early_text()}"
            ) from None
        except BaseException:
            await sandbox.close()
            raise
        return sandbox

    async def close(self) -> None:
        """See `pooled.Starter`."""
        servers = [*self._servers.values()]
        self._servers.clear()
        await asyncio.gather(*(server.close() for server in servers), *self._closing)
        if self._context is not None:
            self._context.destroy(linger=0)
        await in_thread(self._host.give_back)

    async def _bring_up(self, sandbox: KernelSandbox, belongings: Belongings, kind: Kind) -> None:
        sandbox.own_folder(await in_thread(partial(belongings.make, kind.workspace)))
        channel = await self._fork(sandbox, belongings, kind)
        await sandbox.wait_until_ready()
        if belongings.sockets_at is not None and belongings.front == "private":
            await self._connect(sandbox, channel, belongings.sockets_at, belongings.key)

    async def _fork(self, sandbox: KernelSandbox, belongings: Belongings, kind: Kind) -> Channel:
        """Fork init and tell it what to start; from then on the sandbox holds what there is of it."""
        server = self._server(kind, belongings.profile)
        try:
            ends = Ends(belongings.sockets_at)
        except OSError as error:
            raise _out_of_descriptors(error) from error
        try:
            joins = belongings.joins()
            zygote, pidfd = await server.fork(
                [*ends.theirs(), *joins], {"listeners": ends.n_listeners, "cgroups": len(joins)}
            )
            ends.give_theirs_away()
            belongings.close_joins()
            lifeline = Lifeline(ends.control, pidfd, sandbox.on_lifeline)
            channel = PrivateChannel(
                ends.channel,
                ends.stdout,
                ends.stderr,
                sandbox.heard,
                max_frame_bytes=settings.max_frame_bytes(self._config),
            )
            ends.keep_ours()
        finally:
            ends.close()
        sandbox.hold(lifeline, channel, belongings.group, release=partial(server.release, zygote))
        with suppress(OSError):  # it is gone, which the wait for it hears
            lifeline.start(belongings.start_settings(self._config, kind.workspace))
        return channel

    async def _connect(self, sandbox: KernelSandbox, beneath: Channel, sockets_at: Path, key: str) -> None:
        """Talk to ipykernel over zmq; what bypasses Python still comes by the pipes."""
        if self._context is None:
            self._context = zmq.Context()
            self._context.set(zmq.MAX_SOCKETS, 4 * self._config.max_sandboxes + 64)
        channel = ZmqChannel(
            self._context,
            str(sockets_at),
            key.encode(),
            listener=sandbox.heard,
            beneath=beneath,
            max_message_bytes=settings.max_message_bytes(self._config),
        )
        sandbox.use(channel)
        await sandbox.wait_until_answering(lambda: channel.request("kernel_info_request", {}), _NUDGE_S)

    def _server(self, kind: Kind, profile: Profile) -> ForkServer:
        workspaces = kind.workspace.parent if kind.workspace else None
        server = self._servers.pop((kind.profile, workspaces), None) or ForkServer(
            partial(self._spawn, profile, workspaces),
            recycle_after=self._config.recycle_after,
            timeout_s=self._config.zygote_timeout_s,
        )
        self._servers[kind.profile, workspaces] = server  # the last is the one that was used last
        self._close_idle_servers()
        return server

    def _close_idle_servers(self) -> None:
        """End the zygotes that nobody has used for longest: samples may have workspaces in many folders."""
        for key, server in list(self._servers.items())[:-1]:
            if len(self._servers) > _MAX_SERVERS and server.is_idle:
                del self._servers[key]
                closing = asyncio.create_task(server.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def _spawn(self, profile: Profile, workspaces: Path | None) -> Zygote:
        self._n_zygotes += 1
        host = self._host
        return await Zygote.spawn(
            profile.python,
            settings.zygote_settings(
                profile,
                tier=host.tier,
                uid=host.uid,
                workspaces=workspaces,
                scratch=host.scratch,
                cgroups=host.groups.folders if host.groups else [],
                is_memory_counted=host.groups is not None and "memory" in host.groups.controllers,
            ),
            environment=settings.kernel_environment(profile),
            log=host.scratch / f"zygote-{self._n_zygotes}.log",
            timeout_s=self._config.start_timeout_s,
        )


def _out_of_descriptors(error: OSError) -> SandboxStartError:
    return SandboxStartError(
        f"cannot open what connects a sandbox with the runner: {error}; lower sandbox.max_sandboxes, or "
        "raise what this machine allows (ulimit -n)"
    )


async def open_starter(config: PoolConfig, *, trusted_code: bool) -> SandboxStarter:
    """See `pooled.OpenStarter`."""
    return SandboxStarter(config, await in_thread(partial(take_host, config, trusted_code=trusted_code)))
