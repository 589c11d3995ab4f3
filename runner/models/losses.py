"""Requests that take their engine with them: one that breaks vLLM would break one engine after another."""

from __future__ import annotations

import asyncio

from runner.errors import ModelRefused
from runner.models.base import CallClock
from runner.models.endpoint import Endpoint

ALONE_AFTER = 2
"""Engines lost under one request. All in flight are suspects then, and go on one at a time."""


class Losses:
    """The engines that were lost under one request. `close` it when the request is over."""

    __slots__ = ("_alone", "_failed", "_is_alone")

    def __init__(self, alone: asyncio.Lock) -> None:
        """`alone` is held by the one suspect of this process that is tried."""
        self._alone = alone
        self._failed: set[tuple[Endpoint, int]] = set()
        self._is_alone = False

    def note(self, endpoint: Endpoint, n_losses: int) -> None:
        """Remember where a try failed; whether the engine was lost is often known only later.

        Args:
            endpoint: where it was tried.
            n_losses: the endpoint's, as the try began.
        """
        self._failed.add((endpoint, n_losses))  # one engine, however many tries failed there

    async def before_try(self, clock: CallClock) -> None:
        """Wait until the request may be tried again. Safe to cancel.

        Raises:
            ModelRefused: one more engine was lost since it is tried alone: it is to blame.
        """
        n_lost = sum(endpoint.n_losses > before for endpoint, before in self._failed)
        if n_lost > ALONE_AFTER:
            raise ModelRefused(
                f"{n_lost} engines were lost while they worked on this request, the last without the others "
                "that were there before: their logs say why; correct or leave out the sample"
            )
        if n_lost == ALONE_AFTER and not self._is_alone:
            with clock.waiting():
                await self._alone.acquire()
            self._is_alone = True

    def close(self) -> None:
        """Let the next suspect be tried. Idempotent."""
        if self._is_alone:
            self._is_alone = False
            self._alone.release()
