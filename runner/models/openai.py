"""Any server that speaks OpenAI's chat completions: vLLM, llama.cpp, SGLang, Ray Serve, hosted ones.

aiohttp and orjson, nothing between. A request is tried again, with jittered exponential back-off,
after connection errors, time-outs, 408, 429 (no sooner than Retry-After says), 5xx and answers that
are no completion; never after another 4xx.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import orjson

from runner.config import ModelConfig
from runner.encoding import encode
from runner.errors import ConfigError, ContextOverflow, ModelRefused, ModelUnavailable
from runner.models.base import Completion, ModelRequest
from runner.models.wire import BadAnswer, is_context_overflow, read_completion, refusal_text

logger = logging.getLogger(__name__)

RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))
FIRST_BACKOFF_S = 0.5
CONNECT_TIMEOUT_S = 10.0


class OpenAIClient:
    """One server. `api_key` None sends no Authorization header."""

    def __init__(self, url: str, config: ModelConfig, api_key: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(
                f"--model openai:{url}: give the server's address, for example openai:http://localhost:8000/v1"
            )
        self._base_url = url.rstrip("/")
        self._config = config
        self._headers = {"Content-Type": "application/json", **config.headers}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.name = config.name or ""
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Connect, and find the model's name when the config has none.

        Raises:
            ModelUnavailable: nothing listens there, or it answers nothing readable.
            ConfigError: the name is not set and the server lists several models, or none.
        """
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        # The scheduler bounds the number of calls; a pool that bounds it again would only add a queue.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout, connector=connector)
        status, body = await self._get_models()
        if status in (401, 403):
            raise ConfigError(
                f"{self._base_url} refuses us ({refusal_text(status, body)}): export the API key and name "
                f"its variable in model.api_key_env (now: {self._config.api_key_env})"
            )
        if status == 404 and not self._base_url.endswith("/v1"):
            raise ConfigError(f"{self._base_url}/models is not there (HTTP 404): most addresses end in /v1")
        if not self.name:
            self.name = self._only_name(status, body)

    def _only_name(self, status: int, body: bytes) -> str:
        names = _model_names(body) if status == 200 else None
        if names is None:
            raise ConfigError(
                f"model.name is not set, and {self._base_url}/models gives no list of models "
                f"({refusal_text(status, body)}); check the address, or set model.name"
            )
        if len(names) != 1:
            raise ConfigError(
                f"model.name is not set, and {self._base_url}/models lists "
                f"{', '.join(names) or 'no model'}; set model.name"
            )
        return names[0]

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the reply to a conversation. See ModelClient.complete for the errors."""
        body = encode(self._body(request))
        failure = ""
        for n_failed in range(self._config.max_retries + 1):
            wait_s: float | None = None
            began_at = time.perf_counter()
            try:
                status, headers, answer = await self._post(body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            else:
                if status == 200:
                    try:
                        return read_completion(answer, request.messages)
                    except BadAnswer as error:
                        failure = str(error)
                else:
                    failure = refusal_text(status, answer)
                    self._raise_if_final(status, answer, failure)
                    wait_s = retry_after_s(headers, time.time())
            if n_failed < self._config.max_retries:
                wait_s = self._backoff_s(n_failed) if wait_s is None else self._bearable(wait_s, failure)
                request.excuse(time.perf_counter() - began_at + wait_s)
                await asyncio.sleep(wait_s)
                logger.info("model call retried: n_failed=%d reason=%s", n_failed + 1, failure)
        raise ModelUnavailable(
            f"{self._base_url}: no usable answer in {self._config.max_retries + 1} tries "
            f"(model.max_retries); the last: {failure}"
        )

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _body(self, request: ModelRequest) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.name, "messages": request.messages}
        if request.stop:
            body["stop"] = list(request.stop)
        return body | self._config.request

    def _backoff_s(self, n_failed: int) -> float:
        longest_s = min(self._config.max_backoff_s, FIRST_BACKOFF_S * 2**n_failed)
        return random.uniform(longest_s / 2, longest_s)

    def _bearable(self, wait_s: float, failure: str) -> float:
        if wait_s > self._config.timeout_s:
            raise ModelUnavailable(
                f"{self._base_url}: {failure}; it asks us to wait {wait_s:.0f} s, longer than the "
                f"{self._config.timeout_s:g} s of model.timeout_s: run the same command again later"
            )
        return wait_s

    def _raise_if_final(self, status: int, answer: bytes, failure: str) -> None:
        if is_context_overflow(status, answer):
            raise ContextOverflow(failure)
        if status not in RETRIED_STATUSES:
            raise ModelRefused(f"{self._base_url}: {failure}")

    async def _post(self, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        session = self._open_session()
        async with session.post(f"{self._base_url}/chat/completions", data=body) as response:
            return response.status, response.headers, await response.read()

    async def _get_models(self) -> tuple[int, bytes]:
        failure = ""
        for n_failed in range(3):
            try:
                async with self._open_session().get(f"{self._base_url}/models") as response:
                    return response.status, await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = str(error) or type(error).__name__
                await asyncio.sleep(self._backoff_s(n_failed))
        raise ModelUnavailable(
            f"no model server at {self._base_url}: {failure}. Start it, or correct --model openai:URL"
        )

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise ModelUnavailable(f"{self._base_url}: the client is not started, or closed")
        return self._session


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number or a date), or None."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _model_names(body: bytes) -> list[str] | None:
    try:
        rows = orjson.loads(body)["data"]
        return [row["id"] for row in rows if isinstance(row.get("id"), str)]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
