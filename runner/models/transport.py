"""In which form a conversation goes to a server, and a reply comes back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import aiohttp

from runner.models.base import Completion, ModelRequest
from runner.models.endpoint import Answer, Endpoint


class Call(Protocol):
    """One turn's request. What is asked stays the same, however often and of whom."""

    async def ask(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> Answer:
        """Return what an endpoint answers.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: it does not.
            BadAnswer: not what it should.
            ContextOverflow: the conversation does not fit; it is not asked.
        """
        ...

    def read(self, body: bytes) -> Completion:
        """Return the completion in an answer of status 200. Raises BadAnswer."""
        ...

    def shorten(self) -> bool:
        """Ask for a shorter reply from now on. Return False when it cannot be shorter."""
        ...


class Transport(Protocol):
    """All calls of a client."""

    async def check(self, http: aiohttp.ClientSession, endpoints: Sequence[Endpoint]) -> None:
        """Find out, before any work is begun, whether the servers can be asked so.

        Raises:
            ConfigError: one cannot.
            ModelUnavailable: one that was there does not answer any more.
        """

    def call(self, request: ModelRequest) -> Call:
        """Return the request of a turn, to be asked."""
        ...

    def forget(self, attempt: str) -> None:
        """An attempt has ended."""
