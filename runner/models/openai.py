"""Servers that speak OpenAI's API: vLLM, llama.cpp, SGLang, Ray Serve, hosted ones.

aiohttp and orjson, nothing between. A request is tried again, with jittered exponential back-off,
after connection errors, time-outs, 408, 429, 5xx (no sooner than Retry-After says) and answers that
are no completion; never after another 4xx. Of several servers, a trajectory sticks to one, and moves on
when that one fails. Nobody holds a call slot while backing off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

import aiohttp

from runner.config import AdmissionConfig, ModelConfig
from runner.encoding import encode
from runner.endpoint_table import EngineEndpoint
from runner.errors import ConfigError, ModelUnavailable
from runner.models.base import Completion, ModelRequest
from runner.models.chat import ChatTransport, messages_of
from runner.models.endpoint import Answer, Endpoint, OnEvent, loop_time, open_http
from runner.models.engine_table import EngineTable
from runner.models.lookout import Lookout
from runner.models.losses import Losses
from runner.models.request_body import RequestBody
from runner.models.retrying import OVERLOADED_STATUSES, Failure, backoff_s, read_refusal
from runner.models.token_wire import completion_parameters
from runner.models.tokens import TokenTransport
from runner.models.transport import Call, Transport
from runner.models.window import ReplyTooLong, Window
from runner.models.wire import BadAnswer
from runner.routing import Router
from runner.telemetry.statistics import EndpointStatistics

logger = logging.getLogger(__name__)


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
        self._alone = asyncio.Lock()
        self._lookout = Lookout(
            self._endpoints,
            self._router,
            config,
            poll_s=self._admission.poll_s,
            on_ejected=self._tell_ejected,
        )
        self._headers = {"Content-Type": "application/json", **config.headers}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.name = config.name or ""
        self._window = Window()
        self._body, self._transport = self._open_transport()
        self._roots: set[str] = set()
        self._http: aiohttp.ClientSession | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, find the model's name when the config has none, and see whether the transport is served.

        Raises:
            ModelUnavailable: nothing listens at any of the addresses, or answers nothing readable.
            ConfigError: the name is not set and a server lists several models, or none, or another one; or a
                server or its chat template does not allow `model.transport`.
        """
        http = self._http = open_http(self._headers, self._config.timeout_s)
        await self._look_at_models(http)
        ready = [endpoint for index, endpoint in enumerate(self._endpoints) if self._router.is_ready(index)]
        await self._transport.check(http, ready)
        self._watcher = asyncio.create_task(self._lookout.watch(http, self.name))

    def set_endpoints(self, table: Sequence[EngineEndpoint]) -> None:
        """Take in which engines there are: rows of all that there were, in the same order, and more.

        What is in flight on an engine that is lost is redone elsewhere, or when one is back; only the
        trajectories of that engine move. May be called from the event loop at any time.
        """
        self._engines.set_rows(table)

    async def complete(self, request: ModelRequest) -> Completion:
        """Return the reply to a conversation. See ModelClient.complete for the errors."""
        call = self._transport.call(request)
        losses = Losses(self._alone)
        try:
            while True:
                try:
                    return await self._complete(request, call, losses)
                except ReplyTooLong:
                    if not call.shorten():
                        raise
        finally:
            losses.close()

    async def _complete(self, request: ModelRequest, call: Call, losses: Losses) -> Completion:
        """Try until there is a completion. Raises as `complete` does, and ReplyTooLong."""
        n_failed, moved = 0, False
        while True:
            if n_failed:
                await losses.before_try(request.clock)
            index = await self._take_slot(request)
            endpoint = self._endpoints[index]
            n_losses = endpoint.n_losses
            with endpoint.timing(request.clock) as spent:
                try:
                    outcome = await self._call(index, call, request)
                finally:
                    endpoint.gate.release()
            if isinstance(outcome, Completion):
                return outcome
            n_failed += 1
            spent.excuse_all(time.perf_counter())
            losses.note(endpoint, n_losses)
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
                wait_s = backoff_s(n_failed - 1, self._config.max_backoff_s)
                await asyncio.sleep(max(outcome.wait_s, wait_s))

    def identity(self) -> bytes:
        """Return what tells the model from others of its name; known once the client is started.

        Where vLLM has loaded it from, or the servers' addresses; and what its prompts are made by.
        """
        known = sorted(self._roots or {endpoint.url for endpoint in self._endpoints})
        if self._config.transport == "chat":
            return encode(known)
        return encode([*known, self._config.transport, self._config.request])

    def body(self, request: ModelRequest) -> bytes:
        """Return the request with the conversation as text, whatever it is sent as."""
        return self._body.write(messages_of(request), request)

    def forget(self, attempt: str) -> None:
        """See ModelClient."""
        self._router.forget(attempt)
        self._transport.forget(attempt)

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
        self._set_bounds()

    def set_max_calls(self, max_calls: int | None) -> None:
        """Change how many calls may be in flight at each endpoint; None: as many as trajectories."""
        self._admission = self._admission.model_copy(update={"max_calls": max_calls})
        self._set_bounds()

    async def close(self) -> None:
        """Close all connections. Idempotent."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
            self._watcher = None
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _set_bounds(self) -> None:
        for endpoint in self._endpoints:
            endpoint.set_bounds(self._concurrency, self._admission.max_calls)

    def _open_transport(self) -> tuple[RequestBody, Transport]:
        if self._config.transport == "chat":
            body = RequestBody(self._config)
            return body, ChatTransport(body, self._window)
        body = RequestBody(self._config, completion_parameters(self._config.request))
        return body, TokenTransport(self._config, body, self._window, self._on_event)

    async def _look_at_models(self, http: aiohttp.ClientSession) -> None:
        """Take in what the servers list. Raises as `start` does."""
        found = await self._lookout.look_at_models(http)
        if not self.name:
            names = {listed.name for listed in found}
            if len(names) > 1:
                raise ConfigError(
                    f"model.name is not set, and the servers of --model list different models: "
                    f"{', '.join(sorted(names))}; set model.name, or run one model at a time"
                )
            self.name = self._body.model = names.pop()
        for listed in found:
            self._body.is_vllm = self._body.is_vllm or listed.is_vllm
            self._roots |= listed.roots
            if listed.max_model_len is not None:
                self._window.narrow(listed.max_model_len)

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

    async def _call(self, index: int, call: Call, request: ModelRequest) -> Completion | Failure:
        """Return the completion, or why there is none.

        Raises:
            ContextOverflow, ModelRefused: trying again cannot help.
            ReplyTooLong: it can, with a shorter reply.
        """
        endpoint = self._endpoints[index]
        began_at, n_losses = loop_time(), endpoint.n_losses
        try:
            answer = await call.ask(self._open_http(), endpoint)
            if answer.status != 200:
                return self._on_refusal(index, answer, is_first=request.n_turns_done == 0)
            completion = call.read(answer.body)
        except BadAnswer as error:
            self._on_failure(index, str(error))
            return Failure(str(error))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if endpoint.n_losses > n_losses:  # no fault of what may listen there by now
                endpoint.n_failed_calls += 1
                return Failure("its engine was lost")
            failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            self._on_failure(index, failure)
            return Failure(failure)
        now = loop_time()
        endpoint.on_success(now, now - began_at, completion.usage.completion_tokens)
        if self._router.on_success(index):
            self._on_event("endpoint_returned", {"endpoint": endpoint.name})
        return completion

    def _on_refusal(self, index: int, answer: Answer, *, is_first: bool) -> Failure:
        """Return why there is no completion. Raises as `_call` does."""
        endpoint = self._endpoints[index]
        can_ask_less = self._body.max_reply_tokens is not None and (
            self._window.n_tokens is not None or not is_first
        )
        failure = read_refusal(
            answer, endpoint.url, is_first=is_first, can_ask_less=can_ask_less, now=time.time()
        )
        if answer.status in OVERLOADED_STATUSES:
            endpoint.on_refusal(loop_time(), answer.status)
        if answer.status == 429:
            endpoint.n_failed_calls += 1
        else:
            self._on_failure(index, failure.reason)
        return failure

    def _on_failure(self, index: int, failure: str) -> None:
        endpoint = self._endpoints[index]
        endpoint.n_failed_calls += 1
        if self._router.is_up(index) and self._router.on_failure(loop_time(), index):
            self._tell_ejected(index, failure)

    def _tell_ejected(self, index: int, reason: str) -> None:
        self._on_event("endpoint_ejected", {"endpoint": self._endpoints[index].name, "reason": reason})

    def _open_endpoint(self, url: str, name: str = "") -> Endpoint:
        return Endpoint(
            url, self._admission, concurrency=self._concurrency, on_event=self._on_event, name=name
        )

    def _open_http(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise ModelUnavailable("the model client is not started, or closed")
        return self._http
