"""Replies that were given before: a request with the same content is not made again.

Opt-in (`model.cache`), for judges and for temperature 0. A file per reply, named for the SHA-256 of all
that is sent and of who is asked; the seed is part of it, so that epochs differ unless `model.send_seed` is
off. A reply from the cache counts its tokens against the trajectory's limits as the first one did, and not
against the run's.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import orjson

from runner.encoding import encode
from runner.endpoint_table import EngineEndpoint
from runner.errors import ConfigError
from runner.models.base import Completion, ModelRequest
from runner.models.openai import OpenAIClient
from runner.records import Usage
from runner.telemetry.statistics import EndpointStatistics


class CachingClient:
    """Asks `client` only for what `folder` does not hold. Several processes may share a folder."""

    def __init__(self, client: OpenAIClient, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._asking: dict[str, asyncio.Future[Completion]] = {}
        self.name = client.name

    async def start(self) -> None:
        """See ModelClient. Raises ConfigError when the folder cannot be made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"model.cache: {self._folder} cannot be made: {error.strerror}") from error
        await self._client.start()
        self.name = self._client.name

    async def complete(self, request: ModelRequest) -> Completion:
        """See ModelClient. Of equal requests at the same time, one is made."""
        key = hashlib.sha256(self._client.identity() + self._client.body(request)).hexdigest()
        while (asking := self._asking.get(key)) is not None:
            with request.clock.waiting():
                await asyncio.wait([asking])
        asking = self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._read_or_ask(key, request)
        finally:
            del self._asking[key]
            asking.cancel()

    async def _read_or_ask(self, key: str, request: ModelRequest) -> Completion:
        path = self._folder / key[:2] / f"{key}.json"
        cached = await asyncio.to_thread(_read, path)
        if cached is not None:
            return cached
        completion = await self._client.complete(request)
        await asyncio.to_thread(_write, path, completion)
        return completion

    def set_endpoints(self, table: Sequence[EngineEndpoint]) -> None:
        """See OpenAIClient."""
        self._client.set_endpoints(table)

    def forget(self, attempt: str) -> None:
        """See ModelClient."""
        self._client.forget(attempt)

    def endpoints(self) -> tuple[EndpointStatistics, ...]:
        """See ModelClient."""
        return self._client.endpoints()

    def max_trajectories(self) -> int | None:
        """See ModelClient."""
        return self._client.max_trajectories()

    def set_concurrency(self, concurrency: int) -> None:
        """See ModelClient."""
        self._client.set_concurrency(concurrency)

    def set_max_calls(self, max_calls: int | None) -> None:
        """See OpenAIClient."""
        self._client.set_max_calls(max_calls)

    async def close(self) -> None:
        """See ModelClient."""
        await self._client.close()


def _read(path: Path) -> Completion | None:
    """Return a cached reply; None when there is none, or the file is not whole."""
    try:
        row = orjson.loads(path.read_bytes())
        return Completion(**(row | {"usage": Usage(**row["usage"]), "is_cached": True}))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, completion: Completion) -> None:
    """Write a reply whole or not at all; a cache that cannot be written is no reason to fail."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(encode(asdict(completion)))
        temporary.replace(path)
