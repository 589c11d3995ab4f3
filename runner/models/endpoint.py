"""One server of a model: its call slots, its caps, what it did."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from runner.admission import Adaptation, EndpointAdmission, EngineLoad, Standstill
from runner.config import AdmissionConfig
from runner.gate import Gate
from runner.models.base import CallClock
from runner.models.call_time import CallTime
from runner.models.engine_metrics import parse_engine_load
from runner.telemetry.statistics import EndpointStatistics

SMOOTHING = 0.1
CONNECT_TIMEOUT_S = 10.0
LOOK_TIMEOUT_S = 5.0
"""For looks at a server that is not asked to generate: its metrics, its list of models."""

OnEvent = Callable[[str, dict[str, Any]], None]


class Answer(NamedTuple):
    """What a server sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Endpoint:
    """A server at `url`, whose path ends in /v1 mostly."""

    def __init__(
        self, url: str, admission: AdmissionConfig, *, concurrency: int, on_event: OnEvent, name: str = ""
    ) -> None:
        """`name` is for one whose address changes; others are called by theirs."""
        parsed = URL(url)
        self.name = name or f"{parsed.host}:{parsed.port}"
        self._on_event = on_event
        self.admission = EndpointAdmission(
            admission, max_calls=_lower(concurrency, admission.max_calls), max_trajectories=concurrency
        )
        self.gate = Gate(self.admission.max_calls)
        self.n_losses = 0
        """How often what listened there was lost, with all calls in flight."""

        self._is_lost = False
        self._calls: set[asyncio.Timeout] = set()
        self._times: set[CallTime] = set()
        self.n_calls = 0
        self.n_failed_calls = 0
        self.latency_s: float | None = None
        self.listens_at(url)

    @contextmanager
    def timing(self, clock: CallClock) -> Iterator[CallTime]:
        """Excuse what the engine stands still of the time that a block, a call, takes."""
        spent = CallTime(clock, time.perf_counter())
        self._times.add(spent)
        try:
            yield spent
        finally:
            self._times.discard(spent)

    async def post(self, http: aiohttp.ClientSession, body: bytes, path: str = "chat/completions") -> Answer:
        """Ask for a completion. Raises aiohttp.ClientError, TimeoutError, OSError."""
        self.n_calls += 1
        return await self._post(http, self._base_url / path, body)

    async def post_beside(self, http: aiohttp.ClientSession, body: bytes, path: str) -> Answer:
        """Ask for what vLLM has beside /v1, and that costs no GPU. Raises as `post` does."""
        return await self._post(http, self._root_url / path, body)

    async def _post(self, http: aiohttp.ClientSession, url: URL, body: bytes) -> Answer:
        async with asyncio.timeout(None) as call:
            self._calls.add(call)
            try:
                async with http.post(url, data=body) as response:
                    return Answer(response.status, response.headers, await response.read())
            finally:
                self._calls.discard(call)

    def listens_at(self, url: str) -> None:
        """Send what comes from now on to this address."""
        parsed = URL(url.rstrip("/"))
        self.url = str(parsed.with_user(None))
        """Fit to be shown: without a password."""

        self._base_url = parsed
        self._root_url = parsed.parent if parsed.name == "v1" else parsed
        self._models_url = parsed / "models"
        self._metrics_url = parsed.with_path("/metrics").with_query(None)
        self._has_metrics: bool | None = None
        self._standstill = Standstill()
        if self._is_lost:
            self._is_lost = False
            self._apply(self.admission.restart())

    def lose(self) -> None:
        """Let all calls in flight raise TimeoutError now: nobody will answer them."""
        self.n_losses += 1
        self._is_lost = True
        for call in self._calls:
            if not call.expired():
                call.reschedule(loop_time())

    async def get_models(self, http: aiohttp.ClientSession) -> Answer:
        """Ask which models it serves. Raises as `post` does."""
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        async with http.get(self._models_url, timeout=timeout) as response:
            return Answer(response.status, response.headers, await response.read())

    def on_success(self, now: float, latency_s: float, n_completion_tokens: int) -> None:
        """Count a call that gave a completion; it still holds its slot."""
        before_s = self.latency_s
        self.latency_s = latency_s if before_s is None else before_s + SMOOTHING * (latency_s - before_s)
        self._apply(
            self.admission.on_call(
                now,
                latency_s=latency_s,
                n_completion_tokens=n_completion_tokens,
                n_in_flight=self.gate.n_held,
            )
        )

    def on_refusal(self, now: float, status: int) -> None:
        """Count a call that was refused for too many of them; it still holds its slot."""
        self._apply(self.admission.on_refusal(now, status=status, n_in_flight=self.gate.n_held))

    def set_bounds(self, concurrency: int, max_calls: int | None) -> None:
        """Change how many trajectories and calls the user allows; None: as many calls as trajectories."""
        calls = _lower(concurrency, max_calls)
        self._apply(self.admission.set_bounds(max_calls=calls, max_trajectories=concurrency))

    async def look_at_metrics(self, http: aiohttp.ClientSession, now: float, n_trajectories: int) -> None:
        """Read the metrics page, if it is vLLM's; the first answer decides. Never raises."""
        if self._has_metrics is False:
            return
        page = await self._get_metrics(http)
        load = parse_engine_load(page) if page is not None else None
        self._excuse_standstill(load)
        if load is None:
            if page is not None:
                self._has_metrics = self._has_metrics or False
            return
        self._has_metrics = True
        self._apply(
            self.admission.on_load(
                now,
                load,
                n_calls_in_flight=self.gate.n_held,
                n_calls_waiting=self.gate.n_waiting,
                n_trajectories=n_trajectories,
            )
        )

    async def _get_metrics(self, http: aiohttp.ClientSession) -> str | None:
        """Return the metrics page; None where there was no answer."""
        try:
            timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
            async with http.get(self._metrics_url, timeout=timeout) as response:
                page = await response.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return page if response.status < 500 else None

    def _excuse_standstill(self, load: EngineLoad | None) -> None:
        now = time.perf_counter()
        since = self._standstill.observe(now, load)
        if since is not None:
            for spent in self._times:
                spent.excuse_from(since, now)

    def statistics(self, *, is_ready: bool, n_trajectories: int) -> EndpointStatistics:
        """Return how it is doing."""
        return EndpointStatistics(
            name=self.name,
            state="ready" if is_ready else "ejected",
            n_calls_in_flight=self.gate.n_held,
            n_calls_waiting=self.gate.n_waiting,
            max_calls=self.gate.limit,
            n_trajectories=n_trajectories,
            max_trajectories=self.admission.max_trajectories,
            latency_s=self.latency_s,
            n_calls=self.n_calls,
            n_failed_calls=self.n_failed_calls,
        )

    def _apply(self, adaptations: list[Adaptation]) -> None:
        for adaptation in adaptations:
            self._on_event(
                "adapted",
                {
                    "what": adaptation.what,
                    "endpoint": self.name,
                    "before": adaptation.before,
                    "after": adaptation.after,
                    "reason": adaptation.reason,
                },
            )
        if self.gate.limit != self.admission.max_calls:
            self.gate.limit = self.admission.max_calls


def open_http(headers: Mapping[str, str], timeout_s: float) -> aiohttp.ClientSession:
    """Return what requests go through; the caller closes it. `timeout_s` bounds each."""
    return aiohttp.ClientSession(
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S),
        # The gates bound the number of calls; a pool that bounds it again would only add a queue.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=1 << 18,
    )


def _lower(concurrency: int, max_calls: int | None) -> int:
    return concurrency if max_calls is None else min(concurrency, max_calls)


def loop_time() -> float:
    """Return the running loop's clock, which all decisions about endpoints use."""
    return asyncio.get_running_loop().time()
