"""Whether an engine that runs still works: its own word, and the tokens that it makes."""

from __future__ import annotations

import asyncio

import aiohttp

from runner.admission import EngineLoad
from runner.models.engine_metrics import parse_engine_load

LOOK_TIMEOUT_S = 5.0
POLL_S = 1.0


class StallDetector:
    """Pure. An engine with requests must make a token every `stall_s`; one that says nothing has requests."""

    def __init__(self, stall_s: float, now: float) -> None:
        self._stall_s = stall_s
        self._n_tokens = -1
        self._alive_at = now

    def observe(self, now: float, load: EngineLoad | None) -> bool:
        """Take in what the metrics page said, None when it did not answer; return whether it has stalled."""
        if load is not None and (
            load.n_generated_tokens != self._n_tokens or load.n_running + load.n_waiting == 0
        ):
            self._n_tokens = load.n_generated_tokens
            self._alive_at = now
        return now - self._alive_at >= self._stall_s


async def watch_health(url: str, stall_s: float) -> str:
    """Return, once it does not work any more, why not. Safe to cancel."""
    root = url.removesuffix("/v1")
    loop = asyncio.get_running_loop()
    detector = StallDetector(stall_s, loop.time())
    timeout = aiohttp.ClientTimeout(total=min(LOOK_TIMEOUT_S, stall_s))
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            status, _ = await _get(http, f"{root}/health")
            if status == 503:
                return "its engine core is dead (HTTP 503 from /health)"
            _, page = await _get(http, f"{root}/metrics")
            load = parse_engine_load(page)
            if detector.observe(loop.time(), load):
                silence = "it has requests and made no token" if load else "it did not answer"
                return f"{silence} for {stall_s:g} s (engines.stall_s)"
            await asyncio.sleep(min(POLL_S, stall_s / 4))


async def _get(http: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    """Return status and text of an answer; 0 and nothing where there was none."""
    try:
        async with http.get(url) as response:
            return response.status, await response.text(errors="replace")
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, ""
