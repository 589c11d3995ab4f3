"""Servers that speak OpenAI's chat completions: vLLM, llama.cpp, SGLang, Ray Serve, hosted ones.

aiohttp and orjson, nothing between. A request is tried again, with jittered exponential back-off,
after connection errors, time-outs, 408, 429, 5xx (no sooner than Retry-After says) and answers that
are no completion; never after another 4xx. Of several servers, a trajectory sticks to one, and moves on
when that one fails. Nobody holds a call slot while backing off.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp

from runner.config import AdmissionConfig, ModelConfig
from runner.encoding import encode
from runner.endpoint_table import EngineEndpoint
from runner.errors import ConfigError, ContextOverflow, ModelRefused, ModelUnavailable
from runner.models.base import Completion, ModelRequest
from runner.models.endpoint import Answer, Endpoint, OnEvent, loop_time
from runner.models.engine_table import EngineTable
from runner.models.model_list import lists_model, read_model_list
from runner.models.request_body import RequestBody
from runner.models.window import ReplyTooLong, Window, shorter_reply
from runner.models.wire import (
    BadAnswer,
    counts_reply,
    is_context_overflow,
    is_reply_too_long,
    read_completion,
    refusal_text,
)
from runner.routing import Router
from runner.statistics import EndpointStatistics

logger = logging.getLogger(__name__)

RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))
OVERLOADED_STATUSES = frozenset({429, 503})
FIRST_BACKOFF_S = 0.5
CONNECT_TIMEOUT_S = 10.0
PROBE_INTERVAL_S = 0.5


class Failure(NamedTuple):
    """Why a call gave no completion."""

    reason: str
    stays: bool = False
    """Whether the next try goes to the same server: it is well, and says when to come back."""

    wait_s: float = 0.0
    """How long it asks us to wait."""


class OpenAIClient:
    """The servers of one model. `api_key` None sends no Authorization header."""

    def __init__(
        self,
        urls: Sequence[str],
        config: ModelConfig,
        api_key: str | None = None,
        *,
        admission: AdmissionConfig | None = None,
        concurrency: int = 16,
        on_event: OnEvent = lambda name, details: None,
    ) -> None:
        """`on_event` is told of each adaptation, ejection and return of an endpoint.

        No URLs are for engines that are told of by `set_endpoints`, before `start` and whenever they change.
        """
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(
                    f"--model openai:{url}: give the server's address, for example "
                    "openai:http://localhost:8000/v1"
                )
        self._config = config
        self._admission = admission or AdmissionConfig()
        self._on_event = on_event
        self._concurrency = concurrency
        self._endpoints = [self._open_endpoint(url) for url in urls]
        self._router = Router(
            len(self._endpoints), lambda index: self._endpoints[index].admission.max_trajectories
        )
        self._engines = EngineTable(self._endpoints, self._router, open_endpoint=self._open_endpoint)
        self._headers = {"Content-Type": "application/json", **config.headers}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.name = config.name or ""
        self._body = RequestBody(config)
        self._window = Window()
        self._roots: set[str] = set()
        self._http: aiohttp.ClientSession | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, and find the model's name when the config has none.

        Raises:
            ModelUnavailable: nothing listens at any of the addresses, or answers nothing readable.
            ConfigError: the name is not set and a server lists several models, or none, or another one.
        """
        timeout = aiohttp.ClientTimeout(total=self._config.timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        # The gates bound the number of calls; a pool that bounds it again would only add a queue.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
        self._http = aiohttp.ClientSession(
            headers=self._headers,
            timeout=timeout,
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=1 << 18,
        )
        names = await self._look_at_all()
        if not self.name:
            if len(names) > 1:
                raise ConfigError(
                    f"model.name is not set, and the servers of --model list different models: "
                    f"{', '.join(sorted(names))}; set model.name, or run one model at a time"
                )
            self.name = self._body.model = names.pop()
        self._watcher = asyncio.create_task(self._watch())

    def set_endpoints(self, table: Sequence[EngineEndpoint]) -> None:
        """Take in which engines there are: rows of all that there were, in the same order, and more.

        What is in flight on an engine that is lost is redone elsewhere, or when one is back; only the
        trajectories of that engine move. May be called from the event loop at any time.
        """
        self._engines.set_rows(table)

    async def _look_at_all(self) -> set[str]:
        """Return the names of the servers' models; one that is down is left out for now if others are not."""
        names, down = set(), []
        for index, endpoint in enumerate(self._endpoints):
            if not self._router.is_up(index):
                continue
            try:
                names.add(await self._look_at_models(endpoint))
            except ModelUnavailable as error:
                down.append((index, error))
        if not names:
            raise down[0][1] if down else ModelUnavailable("no engine is ready: start them before the client")
        for index, cause in down:
            self._router.eject(loop_time(), index)
            self._tell_ejected(index, str(cause))
            logger.warning("model server left out until it answers: %s", cause)
        return names

    async def _look_at_models(self, endpoint: Endpoint) -> str:
        """Check that a server is there; return the name of its model, or the one that the config has."""
        answer = await self._get_models(endpoint)
        listed = read_model_list(answer, endpoint.url, self._config.name or None, self._config.api_key_env)
        self._body.is_vllm = self._body.is_vllm or listed.is_vllm
        self._roots |= listed.roots
        if listed.max_model_len is not None:
            self._window.narrow(listed.max_model_len)
        return listed.name

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the reply to a conversation. See ModelClient.complete for the errors."""
        asked, wanted = self.body(request), self._body.max_reply_tokens
        if wanted is None:
            return await self._complete(request, asked)
        n_tokens = self._window.longest_reply(request.attempt, len(asked), wanted)
        while True:
            body = asked if n_tokens == wanted else self._body.write_shortened(request, n_tokens)
            try:
                completion = await self._complete(request, body)
            except ReplyTooLong:
                shorter = shorter_reply(n_tokens)
                if shorter is None:
                    raise
                n_tokens = shorter
                continue
            self._window.on_completion(request.attempt, len(asked), completion)
            return completion

    async def _complete(self, request: ModelRequest, body: bytes) -> Completion:
        """Try until there is a completion. Raises as `complete` does, and ReplyTooLong."""
        n_failed, moved = 0, False
        while True:
            index = await self._take_slot(request)
            endpoint = self._endpoints[index]
            n_losses = endpoint.n_losses
            began_at = time.perf_counter()
            try:
                outcome = await self._call(index, body, request)
            finally:
                endpoint.gate.release()
            if isinstance(outcome, Completion):
                return outcome
            n_failed += 1
            request.clock.excuse(time.perf_counter() - began_at)
            if n_failed > self._config.max_retries:
                raise ModelUnavailable(
                    f"{endpoint.url}: no usable answer in {n_failed} tries (model.max_retries); "
                    f"the last: {outcome.reason}"
                )
            logger.info("model call retried: n_failed=%d reason=%s", n_failed, outcome.reason)
            if endpoint.n_losses > n_losses:
                continue  # another engine has the trajectory now, or it waits until one is back
            if not (outcome.stays or moved) and self._router.move(request.attempt, away_from=index):
                moved = True  # once at once; after that it backs off wherever it is
                continue
            if outcome.wait_s > self._config.timeout_s:
                raise ModelUnavailable(
                    f"{endpoint.url}: {outcome.reason}; it asks us to wait {outcome.wait_s:.0f} s, "
                    f"longer than the {self._config.timeout_s:g} s of model.timeout_s: run the same command "
                    "again later"
                )
            with request.clock.waiting():
                await asyncio.sleep(max(outcome.wait_s, self._backoff_s(n_failed - 1)))

    def identity(self) -> bytes:
        """Return what tells the model from others of its name; known once the client is started.

        Where vLLM has loaded it from, or the servers' addresses.
        """
        return encode(sorted(self._roots or {endpoint.url for endpoint in self._endpoints}))

    def body(self, request: ModelRequest) -> bytes:
        """Return the request as it is sent."""
        return self._body.write(request)

    def forget(self, attempt: str) -> None:
        """See ModelClient."""
        self._router.forget(attempt)
        self._window.forget(attempt)

    def endpoints(self) -> tuple[EndpointStatistics, ...]:
        """See ModelClient."""
        router = self._router
        return tuple(
            endpoint.statistics(is_ready=router.is_ready(index), n_trajectories=router.n_pinned(index))
            for index, endpoint in enumerate(self._endpoints)
        )

    def max_trajectories(self) -> int:
        """See ModelClient."""
        caps = [endpoint.admission.max_trajectories for endpoint in self._endpoints]
        ready = [cap for index, cap in enumerate(caps) if self._router.is_ready(index)]
        return sum(ready or caps)

    def set_concurrency(self, concurrency: int) -> None:
        """See ModelClient."""
        self._concurrency = concurrency
        for endpoint in self._endpoints:
            endpoint.set_concurrency(concurrency)

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _take_slot(self, request: ModelRequest) -> int:
        """Return the endpoint to call, with one of its slots held."""
        while True:
            await self._engines.wait(request.clock)
            index = self._router.pick(request.attempt)
            gate = self._endpoints[index].gate
            if gate.try_acquire():
                return index
            with request.clock.waiting():
                await gate.acquire()
            if self._engines.can_call and self._router.pick(request.attempt) == index:
                return index
            gate.release()  # it was ejected or lost meanwhile

    async def _call(self, index: int, body: bytes, request: ModelRequest) -> Completion | Failure:
        """Return the completion, or why there is none.

        Raises:
            ContextOverflow, ModelRefused: trying again cannot help.
            ReplyTooLong: it can, with a shorter reply.
        """
        endpoint = self._endpoints[index]
        began_at = loop_time()
        try:
            answer = await endpoint.post(self._open_http(), body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if not self._router.is_up(index):
                failure = "its engine was lost"
            self._on_failure(index, failure)
            return Failure(failure)
        if answer.status == 200:
            try:
                completion = read_completion(answer.body, request.conversation.messages)
            except BadAnswer as error:
                self._on_failure(index, str(error))
                return Failure(str(error))
            now = loop_time()
            endpoint.on_success(now, now - began_at, completion.usage.completion_tokens)
            if self._router.on_success(index):
                self._on_event("endpoint_returned", {"endpoint": endpoint.name})
            return completion
        return self._on_refusal(index, answer, is_first=request.n_turns_done == 0)

    def _on_refusal(self, index: int, answer: Answer, *, is_first: bool) -> Failure:
        """Return why there is no completion. Raises as `_call` does."""
        endpoint, status = self._endpoints[index], answer.status
        failure = refusal_text(status, answer.body)
        if is_context_overflow(status, answer.body):
            can_ask_less = self._body.max_reply_tokens is not None and (self._window.n_tokens or not is_first)
            if can_ask_less and counts_reply(answer.body):
                raise ReplyTooLong(failure)
            if is_first and is_reply_too_long(answer.body):
                raise ModelRefused(
                    f"{endpoint.url}: {failure} The task leaves too little room: lower "
                    "model.request.max_tokens, or serve the model with a larger window"
                )
            raise ContextOverflow(failure)
        if status not in RETRIED_STATUSES:
            raise ModelRefused(f"{endpoint.url}: {failure}")
        if status in OVERLOADED_STATUSES:
            endpoint.on_refusal(loop_time(), status)
        wait_s = retry_after_s(answer.headers, time.time())
        if status == 429:
            endpoint.n_failed_calls += 1
        else:
            self._on_failure(index, failure)
        return Failure(failure, stays=status == 429 or wait_s is not None, wait_s=wait_s or 0.0)

    def _on_failure(self, index: int, failure: str) -> None:
        endpoint = self._endpoints[index]
        endpoint.n_failed_calls += 1
        if self._router.is_up(index) and self._router.on_failure(loop_time(), index):
            self._tell_ejected(index, failure)

    def _tell_ejected(self, index: int, reason: str) -> None:
        self._on_event("endpoint_ejected", {"endpoint": self._endpoints[index].name, "reason": reason})

    def _backoff_s(self, n_failed: int) -> float:
        longest_s = min(self._config.max_backoff_s, FIRST_BACKOFF_S * 2**n_failed)
        return random.uniform(longest_s / 2, longest_s)

    async def _watch(self) -> None:
        """Read the endpoints' metrics, and probe those that are ejected."""
        next_look_at = 0.0
        while True:
            now = loop_time()
            work = [self._probe(index) for index in self._router.take_probes(now)]
            if now >= next_look_at:
                next_look_at = now + self._admission.poll_s
                up = [index for index in range(len(self._endpoints)) if self._router.is_up(index)]
                work += [self._look_at_metrics(index, now) for index in up]
            await asyncio.gather(*work)
            await asyncio.sleep(min(PROBE_INTERVAL_S, self._admission.poll_s))

    async def _look_at_metrics(self, index: int, now: float) -> None:
        await self._endpoints[index].look_at_metrics(self._open_http(), now, self._router.n_pinned(index))

    async def _probe(self, index: int) -> None:
        endpoint = self._endpoints[index]
        try:
            answer = await endpoint.get_models(self._open_http())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        if answer.status < 500 and self._serves_model(answer):
            self._router.on_probe(index)

    def _serves_model(self, answer: Answer) -> bool:
        """Whether a server may be asked for the model; one that goes by a name of the config's takes any."""
        return bool(self._config.name) or lists_model(answer, self.name)

    async def _get_models(self, endpoint: Endpoint) -> Answer:
        failure = ""
        for n_failed in range(3):
            try:
                return await endpoint.get_models(self._open_http())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = str(error) or type(error).__name__
                await asyncio.sleep(self._backoff_s(n_failed))
        raise ModelUnavailable(
            f"no model server at {endpoint.url}: {failure}. Start it, or correct --model openai:URL"
        )

    def _open_endpoint(self, url: str, name: str = "") -> Endpoint:
        return Endpoint(
            url, self._admission, concurrency=self._concurrency, on_event=self._on_event, name=name
        )

    def _open_http(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise ModelUnavailable("the model client is not started, or closed")
        return self._http


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
