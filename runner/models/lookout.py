"""Who looks at a model's servers: at their models before a run, at their metrics while it goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import aiohttp

from runner.config import ModelConfig
from runner.errors import ModelUnavailable
from runner.models.endpoint import Answer, Endpoint, loop_time
from runner.models.model_list import Listed, lists_model, read_model_list
from runner.models.retrying import backoff_s
from runner.routing import Router

logger = logging.getLogger(__name__)

PROBE_INTERVAL_S = 0.5
N_TRIES = 3
"""To reach a server before a run."""


class Lookout:
    """Looks at `endpoints`, to which others may be added. `on_ejected` is told an index and a reason."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        router: Router,
        config: ModelConfig,
        *,
        poll_s: float,
        on_ejected: Callable[[int, str], None],
    ) -> None:
        self._endpoints = endpoints
        self._router = router
        self._config = config
        self._poll_s = poll_s
        self._on_ejected = on_ejected

    async def look_at_models(self, http: aiohttp.ClientSession) -> list[Listed]:
        """Return what each server lists; one that is down is left out for now if others are not.

        Raises:
            ModelUnavailable: none answers.
            ConfigError: see `read_model_list`.
        """
        found, down = [], []
        for index, endpoint in enumerate(self._endpoints):
            if not self._router.is_up(index):
                continue
            try:
                answer = await self._get_models(http, endpoint)
            except ModelUnavailable as error:
                down.append((index, error))
                continue
            found.append(
                read_model_list(answer, endpoint.url, self._config.name or None, self._config.api_key_env)
            )
        if not found:
            raise down[0][1] if down else ModelUnavailable("no engine is ready: start them before the client")
        for index, cause in down:
            self._router.eject(loop_time(), index)
            self._on_ejected(index, str(cause))
            logger.warning("model server left out until it answers: %s", cause)
        return found

    async def watch(self, http: aiohttp.ClientSession, model: str) -> None:
        """Read the endpoints' metrics, and probe those that are ejected, until cancelled."""
        next_look_at = 0.0
        while True:
            now = loop_time()
            work = [self._probe(http, index, model) for index in self._router.take_probes(now)]
            if now >= next_look_at:
                next_look_at = now + self._poll_s
                up = [index for index in range(len(self._endpoints)) if self._router.is_up(index)]
                work += [self._look_at_metrics(http, index, now) for index in up]
            await asyncio.gather(*work)
            await asyncio.sleep(min(PROBE_INTERVAL_S, self._poll_s))

    async def _look_at_metrics(self, http: aiohttp.ClientSession, index: int, now: float) -> None:
        await self._endpoints[index].look_at_metrics(http, now, self._router.n_pinned(index))

    async def _probe(self, http: aiohttp.ClientSession, index: int, model: str) -> None:
        endpoint = self._endpoints[index]
        try:
            answer = await endpoint.get_models(http)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        # One that goes by a name of the config's takes any.
        if answer.status < 500 and (self._config.name or lists_model(answer, model)):
            self._router.on_probe(index)

    async def _get_models(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> Answer:
        failure = ""
        for n_failed in range(N_TRIES):
            try:
                return await endpoint.get_models(http)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = str(error) or type(error).__name__
                await asyncio.sleep(backoff_s(n_failed, self._config.max_backoff_s))
        raise ModelUnavailable(
            f"no model server at {endpoint.url}: {failure}. Start it, or correct --model openai:URL"
        )
