"""One engine on a node of a Ray cluster: an actor that owns the engine's process, in a placement group."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.engines.actor import EngineActor
from runner.engines.host import EngineAddress, EngineSpec
from runner.engines.node_placement import LEAST_CPU
from runner.engines.process import MAX_TAIL_BYTES
from runner.engines.ray_connection import alive_nodes
from runner.errors import EngineStartError

logger = logging.getLogger(__name__)

CALL_MARGIN_S = 15.0
"""For an actor's answer, beyond what it was asked to do may take."""

NOTICE_S = 15.0
"""Without room for so long, an engine that waits for it says so."""

MAX_REASON_CHARS = 300
NEVER_ENDS = "its actor was closed"


@dataclass(frozen=True, slots=True)
class Site:
    """What an engine takes of the cluster."""

    n_gpus: int
    n_cpus: int
    host: str | None
    """The address to listen on; None: the node's own."""

    spans_nodes: bool = False
    """vLLM's Ray executor takes the GPUs; the actor takes none, and is put on a node that has some."""


class RayEngineHost:
    """An EngineHost. Its placement group stays the same: a new actor goes where that is, or is moved to.

    Args:
        spec: what to start.
        site: what it takes.
        log_path: where the log goes, if the engine's node sees its folder; else the ends of logs go there.
        index: which engine this is, so that those which span nodes begin on different ones.
    """

    def __init__(self, spec: EngineSpec, site: Site, log_path: Path, *, index: int = 0) -> None:
        self._spec = spec
        self._site = site
        self._log_path = log_path
        self._index = index
        self._group: Any = None
        self._actor: Any = None

    async def start(self) -> EngineAddress:
        """See EngineHost."""
        from ray.exceptions import RayError

        limit_s = self._spec.start_timeout_s
        try:
            async with asyncio.timeout(limit_s + CALL_MARGIN_S):
                if self._actor is None:
                    self._actor = await self._new_actor()
                outcome = await self._actor.start.remote()
        except TimeoutError:
            outcome = EngineStartError(await asyncio.to_thread(self._describe_silence))
        except RayError as error:
            outcome = EngineStartError(f"an engine did not start: {describe_ray_error(error)}")
        except BaseException:
            await asyncio.shield(self.stop(0.0))
            raise
        if isinstance(outcome, EngineAddress):
            return outcome
        await self.stop(0.0)
        raise outcome

    async def ended(self) -> str:
        """See EngineHost."""
        from ray.exceptions import RayError

        if self._actor is None:
            return NEVER_ENDS
        try:
            return str(await self._actor.ended.remote())
        except RayError as error:
            return f"its actor is gone: {describe_ray_error(error)}"

    async def stop(self, grace_s: float) -> None:
        """See EngineHost. The actor stays for the next start, unless it does not answer."""
        if self._actor is None:
            return
        if not await self._ask("stop", grace_s, limit_s=grace_s):
            self._kill()
        elif far := await self._far_log_tail():
            await asyncio.to_thread(append, self._log_path, far)

    async def log_tail(self) -> str:
        """See EngineHost. Of a dead actor, what this node sees of the log."""
        return await self._far_log_tail() or await asyncio.to_thread(read_tail, self._log_path)

    async def close(self) -> None:
        """See EngineHost."""
        from ray.util import remove_placement_group

        if self._actor is not None:
            await self._ask("close", limit_s=0.0)
            self._kill()
        if self._group is not None:
            group, self._group = self._group, None
            with suppress(Exception):  # the cluster is gone, and the group with it
                await asyncio.to_thread(remove_placement_group, group)

    async def _ask(self, method: str, *arguments: Any, limit_s: float) -> tuple[Any] | None:
        """Call a method of the actor; None when there was no answer."""
        from ray.exceptions import RayError

        try:
            async with asyncio.timeout(limit_s + CALL_MARGIN_S):
                return (await getattr(self._actor, method).remote(*arguments),)
        except (TimeoutError, RayError) as error:
            logger.info("%s of an engine's actor: no answer: %s", method, error)
            return None

    async def _far_log_tail(self) -> str:
        """Return the end of a log that this node does not see."""
        found = await self._ask("far_log_tail", limit_s=0.0) if self._actor is not None else None
        return str(found[0]) if found else ""

    async def _new_actor(self) -> Any:
        """Return an actor that runs; nothing is left of one that does not get that far."""
        import ray

        sign = f"--- actor {secrets.token_hex(8)}"
        await asyncio.to_thread(append, self._log_path, sign)
        site = self._site
        gcs_address = ray.get_runtime_context().gcs_address if site.spans_nodes else None
        options = {
            "max_restarts": 0,  # a new process would hold no engine: whoever starts it again makes one
            "max_concurrency": 100,
            "scheduling_strategy": await asyncio.to_thread(self._place),
            "num_gpus": 0 if site.spans_nodes else site.n_gpus,
            "num_cpus": site.n_cpus,
        }
        path = str(self._log_path.absolute())
        remote = ray.remote(EngineActor).options(**options)
        actor = remote.remote(self._spec, site.host, path, sign, gcs_address)
        try:
            await self._until_there(actor)
        except BaseException:
            ray.kill(actor)
            raise
        return actor

    async def _until_there(self, actor: Any) -> None:
        """Wait until an actor runs, for which there may be no room yet."""
        there = asyncio.ensure_future(actor.is_there.remote())
        try:
            if not (await asyncio.wait({there}, timeout=NOTICE_S))[0]:
                logger.warning("an engine waits: %s", await asyncio.to_thread(self._describe_wait))
            await there
        finally:
            there.cancel()

    def _place(self) -> Any:
        """Return where an actor is to go. Blocks."""
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import (
            NodeAffinitySchedulingStrategy,
            PlacementGroupSchedulingStrategy,
        )

        if self._site.spans_nodes:
            nodes = [node.node_id for node in alive_nodes() if node.n_gpus]
            return NodeAffinitySchedulingStrategy(nodes[self._index % len(nodes)], soft=False)
        if self._group is None:
            needs: dict[str, float] = {"GPU": self._site.n_gpus, "CPU": self._site.n_cpus}
            bundle = {name: n for name, n in needs.items() if n} or {"CPU": LEAST_CPU}
            self._group = placement_group([bundle], strategy="STRICT_PACK")
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0)

    def _describe_silence(self) -> str:
        """Return why nothing was heard of an actor for the whole time. Blocks."""
        silence = f"an engine did not start within {self._spec.start_timeout_s:g} s (engines.start_timeout_s)"
        return f"{silence}: {self._describe_wait()}"

    def _describe_wait(self) -> str:
        """Return why an actor is not there yet, and what to do. Blocks."""
        return describe_wait(self._site, has_place=self._has_place())

    def _has_place(self) -> bool:
        """Return whether Ray has set aside what the engine needs, or does not say. Blocks."""
        from ray.util import placement_group_table

        if self._group is None:
            return True
        try:
            return bool(placement_group_table(self._group)["state"] == "CREATED")
        except Exception:  # noqa: BLE001 - this is for a message alone, and the cluster may be gone
            return True

    def _kill(self) -> None:
        """End the actor's process; the raylet ends its group, and the keeper the rest."""
        import ray

        actor, self._actor = self._actor, None
        with suppress(Exception):
            ray.kill(actor)


def describe_wait(site: Site, *, has_place: bool) -> str:
    """Return what an actor waits for, and what to do. Pure."""
    if not has_place:
        return (
            f"no node of the Ray cluster has {site.n_gpus} GPUs and {site.n_cpus} CPUs free (ray status "
            f"lists who has them); wait for them, or lower engines.replicas"
        )
    return (
        "its node is not done yet: it gets ready what the engine needs, or does not answer (ray list nodes "
        "shows whether it lives)"
    )


def describe_ray_error(error: Exception) -> str:
    """Return what became of an actor or a task, in a line. Pure."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if "No module named 'runner'" in str(error):
        return (
            "its node has no `runner` package: run from a checkout with ray job submit --working-dir . -- "
            "python -m runner ..., or install the runner on all nodes"
        )
    return last[:MAX_REASON_CHARS]


def append(path: Path, text: str) -> None:
    """Add to a log, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write(f"{text}\n")


def read_tail(path: Path) -> str:
    """Return the end of a log; empty when there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - MAX_TAIL_BYTES))
            return log.read().decode("utf-8", "replace").strip()
    except OSError:
        return ""
