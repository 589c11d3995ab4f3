"""Whether an engine that runs still works: its own word, and the tokens that it makes."""

from __future__ import annotations

import asyncio

import aiohttp

from runner.admission import EngineLoad
from runner.models.engine_metrics import parse_engine_load

LOOK_TIMEOUT_S = 5.0
POLL_S = 1.0
METRICS_POLL_S = 5.0
"""A page costs a third of a millisecond to read, and there may be a hundred engines."""

MAX_GAP_S = 4 * LOOK_TIMEOUT_S
"""Between two looks more has passed only where the runner itself stood still, which is no engine's fault."""


class StallDetector:
    """Pure. An engine with requests must make a token every `stall_s`; one that says nothing has requests.

    One that answers and gives no figures, as vLLM does under --disable-log-stats, is taken to be well.
    """

    def __init__(self, stall_s: float, now: float) -> None:
        self._stall_s = stall_s
        self._n_tokens = -1
        self._looked_at = now
        self._quiet_s = 0.0

    def observe(self, now: float, load: EngineLoad | None, *, is_there: bool = False) -> bool:
        """Return whether it has stalled.

        Args:
            now: the time.
            load: what the metrics page said; None where it gave no figures.
            is_there: whether there was an answer, if not figures.
        """
        self._quiet_s += min(now - self._looked_at, MAX_GAP_S)
        self._looked_at = now
        if load is None:
            works = is_there
        else:
            works = load.n_generated_tokens != self._n_tokens or load.n_running + load.n_waiting == 0
            self._n_tokens = load.n_generated_tokens
        if works:
            self._quiet_s = 0.0
        return self._quiet_s >= self._stall_s


async def watch_health(url: str, stall_s: float) -> str:
    """Return, once it does not work any more, why not. Safe to cancel."""
    root = url.removesuffix("/v1")
    loop = asyncio.get_running_loop()
    detector = StallDetector(stall_s, loop.time())
    timeout = aiohttp.ClientTimeout(total=min(LOOK_TIMEOUT_S, stall_s))
    next_page_at = loop.time()
    async with aiohttp.ClientSession(timeout=timeout) as http:
        while True:
            status, _ = await _get(http, f"{root}/health")
            if status == 503:
                return "its engine core is dead (HTTP 503 from /health)"
            if loop.time() >= next_page_at:
                next_page_at = loop.time() + min(METRICS_POLL_S, stall_s / 4)
                status, page = await _get(http, f"{root}/metrics")
                load = parse_engine_load(page)
                if detector.observe(loop.time(), load, is_there=0 < status < 500):
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
