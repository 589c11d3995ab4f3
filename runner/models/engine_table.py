"""Engines that come and go under the client: rows of a table, applied to its endpoints and its router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from runner.endpoint_table import EngineEndpoint
from runner.errors import ModelUnavailable
from runner.models.base import CallClock
from runner.models.endpoint import Endpoint
from runner.routing import Router


class EngineTable:
    """The engines that hosts tell of; none where the client was given addresses.

    It appends to `endpoints` and to the router, in the order of the rows, and never removes. `open_endpoint`
    makes an endpoint of an address and a name.
    """

    def __init__(
        self,
        endpoints: list[Endpoint],
        router: Router,
        *,
        open_endpoint: Callable[[str, str], Endpoint],
    ) -> None:
        self._endpoints = endpoints
        self._router = router
        self._open_endpoint = open_endpoint
        self._rows: list[EngineEndpoint] = []
        self._can_call = asyncio.Event()
        if endpoints:
            self._can_call.set()

    @property
    def can_call(self) -> bool:
        """Whether nobody needs to wait: an engine is there, or none will ever be."""
        return self._can_call.is_set()

    def set_rows(self, table: Sequence[EngineEndpoint]) -> None:
        """Take in rows of all engines that there were, in the same order, and more.

        What is in flight on an engine that is lost ends now, and only the trajectories of that engine move.
        """
        for index, row in enumerate(table):
            before = self._rows[index] if index < len(self._rows) else None
            if before is None:
                self._endpoints.append(self._open_endpoint(row.url or "http://starting/v1", row.replica))
                self._router.add()
            elif before == row:
                continue
            elif before.epoch != row.epoch or row.state in ("lost", "failed"):
                self._lose(index, before)
            self._apply(index, row)
        self._rows = list(table)
        is_over = bool(table) and all(row.state == "failed" for row in table)
        if is_over or any(row.state == "ready" for row in table):
            self._can_call.set()
        else:
            self._can_call.clear()

    async def wait(self, clock: CallClock) -> None:
        """Wait while no engine is there but one may come back. Raises ModelUnavailable when none will."""
        if not self._can_call.is_set():
            with clock.waiting():
                await self._can_call.wait()
        if self._rows and all(row.state == "failed" for row in self._rows):
            raise ModelUnavailable("all engines are lost, and none will be started again")

    def _lose(self, index: int, before: EngineEndpoint) -> None:
        """Nothing comes back of what is in flight there, unless that was said before."""
        if before.state in ("ready", "draining"):
            self._endpoints[index].lose()

    def _apply(self, index: int, row: EngineEndpoint) -> None:
        if row.state == "ready":
            self._endpoints[index].listens_at(row.url)
            self._router.set_up(index)
        else:
            self._router.set_down(index)
