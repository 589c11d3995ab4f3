"""Opens workers on the nodes of a cluster: one on each at first, and replacements for those that are lost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runner.cluster.links import Fleet, WorkerLink
from runner.cluster.messages import Setup, WorkerInfo
from runner.cluster.recording import recording_of, with_digest
from runner.errors import ClusterError

logger = logging.getLogger(__name__)

MAX_FAILED_STARTS = 3
"""Of workers on one node, before it gets no other."""

OPEN_TIMEOUT_S = 300.0
"""How long a worker may take to read its benchmark and to open its pool."""

CLOSE_TIMEOUT_S = 10.0
SAME_EVERYWHERE = ("tier", "kernel")
"""Of a pool's capabilities: trajectories of one run are not to differ by the node that made them."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A worker that is open."""

    name: str
    """Unlike that of any other worker of the run."""

    node: str
    link: WorkerLink
    info: WorkerInfo


class Crew:
    """The workers of one run. Its owner closes it."""

    def __init__(self, fleet: Fleet, setup: Setup, max_workers: int | None = None) -> None:
        """`max_workers` None: one on each node."""
        self._fleet = fleet
        self._setup = setup
        self._max_workers = max_workers
        self._members: dict[str, Member] = {}
        """By node."""

        self._opening: set[str] = set()
        self._n_failed: Counter[str] = Counter()
        self._n_made = 0
        self._first: Mapping[str, Any] | None = None
        self.last_error: Exception | None = None

    def capabilities(self) -> Mapping[str, Any]:
        """Return those of the pools, which are alike; nothing before `open`."""
        return self._first or {}

    @property
    def members(self) -> list[Member]:
        """Those that are open."""
        return list(self._members.values())

    async def open(self) -> None:
        """Open the first workers.

        Raises:
            ClusterError: there is no node for a worker.
            SandboxError, ConfigError, ModelError, ...: none could be opened; that of one of them.
        """
        try:
            self._setup = await asyncio.to_thread(with_digest, self._setup)
        except OSError as error:
            raise ClusterError(
                f"{self._setup.config.model.client} cannot be read: {error.strerror}"
            ) from error
        await self.hire()
        if self._first is None:
            raise self.last_error or ClusterError(
                "no node of the cluster may have a worker: none has a CPU free for it. Start nodes, or free "
                "some; where nodes declare the resource `sandbox`, only those are taken"
            )

    async def recording(self, member: Member) -> bytes | None:
        """Return the file that the model replays, if a worker needs it. Raises OSError."""
        path = recording_of(self._setup.config)
        return None if path is None or member.info.has_recording else await asyncio.to_thread(path.read_bytes)

    async def hire(self) -> list[Member]:
        """Open workers on nodes that have none, as many as are wanted; return the new ones. Never raises.

        May be called again meanwhile: a node may take long to say that it is dead.
        """
        try:
            nodes = await self._fleet.nodes()
        except ClusterError as error:
            self.last_error = error
            return []
        taken = self._members.keys() | self._opening
        free = [n for n in nodes if n not in taken and self._n_failed[n] < MAX_FAILED_STARTS]
        if self._max_workers is not None:
            free = free[: max(0, self._max_workers - len(taken))]
        self._opening.update(free)
        try:
            members = await asyncio.gather(*map(self._hire, free))
        finally:
            self._opening.difference_update(free)
        return [member for member in members if member is not None]

    def failed(self, node: str, error: Exception) -> None:
        """Count a worker that could not begin on a node."""
        self._n_failed[node] += 1
        self.last_error = error

    def exclude(self, node: str) -> None:
        """Let no other worker begin on a node."""
        self._n_failed[node] = MAX_FAILED_STARTS

    def drop(self, member: Member) -> None:
        """Count a worker out, and end its process."""
        if self._members.get(member.node) is member:
            del self._members[member.node]
        member.link.kill()

    async def close(self) -> None:
        """Close all workers, in good order where they answer."""
        await asyncio.gather(*(self.dismiss(member) for member in self.members))

    async def dismiss(self, member: Member, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Close a worker, in good order where it answers; its process is ended however that goes."""
        try:
            with suppress(ClusterError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await member.link.call("close")
        finally:
            self.drop(member)

    async def _hire(self, node: str) -> Member | None:
        link = None
        try:
            link = await self._fleet.launch(node)
            info = await _open(link, node, self._setup)
            self._check_same(info)
        except Exception as error:  # noqa: BLE001 - whatever a node lacks is no reason to end the others' work
            self.failed(node, error)
            logger.warning("no worker on node %s: %s", node[:12], error)
            if link is not None:
                link.kill()
            return None
        except BaseException:
            if link is not None:
                link.kill()
            raise
        self._n_made += 1
        member = Member(f"{info.host}-{self._n_made}", node, link, info)
        self._members[node] = member
        return member

    def _check_same(self, info: WorkerInfo) -> None:
        first = self._first = self._first or info.capabilities
        for key in SAME_EVERYWHERE:
            if info.capabilities.get(key) != first.get(key):
                raise ClusterError(
                    f"node {info.host} holds code with {key} {info.capabilities.get(key)}, the nodes before "
                    f"it with {first.get(key)}: make them alike, set sandbox.{key}, or let only some nodes "
                    "declare the resource `sandbox`"
                )


async def _open(link: WorkerLink, node: str, setup: Setup) -> WorkerInfo:
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            info: WorkerInfo = await link.call("open", setup)
    except TimeoutError:
        raise ClusterError(
            f"node {node[:12]}: the worker did not open within {OPEN_TIMEOUT_S:g} s; look at that node's disk"
        ) from None
    return info
