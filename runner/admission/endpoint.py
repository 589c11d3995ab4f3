"""How many trajectories, model calls and sandboxes may be in flight, from what was observed.

Pure: time is a parameter, and nothing here waits. Caps only stop admitting; nobody is sent away.

An endpoint without metrics is felt out as TCP feels out a network: the cap doubles while throughput
follows it, holds where throughput stops growing, is tried a little higher now and then, and is cut when
the server refuses (429, 503). An endpoint with vLLM's metrics is read instead: its queue, its KV cache
and its preemptions say more than any answer. The constants are those of shared experience with KV
pressure: grow below 60 %, trim above 80 %, cut above 90 %.
"""

from __future__ import annotations

from runner.admission.observed import Adaptation, EngineLoad, changed, grown
from runner.admission.throughput import Round

FIRST_CALLS = 16
TOKENS_PER_TRAJECTORY = 8192
"""Assumed of a trajectory before any has run, to begin with as many as the KV cache may hold."""

GROWTH = 1.25
CUT = 0.8
FOLLOWS = 0.5
FOLLOWS_DOUBLED = 0.25
"""Throughput follows the cap when it grows by at least this share of what the cap grew by; a quarter more of
it is worth another doubling, and too little to be told from noise after a small step."""

BINDS = 0.9
MIN_ROUND_CALLS = 8
CUT_INTERVAL_S = 1.0
REFUSAL_SMOOTHING = 0.05
MAX_REFUSED_SHARE = 0.1
"""Fewer refusals are noise, and cost a retry; a server that is too full refuses more than that."""

CALM_AFTER_REFUSAL_S = 5.0
FIRST_RETRY_S = 4.0
MAX_RETRY_S = 60.0

LOAD_EXPIRES_S = 15.0
KV_GROW, KV_TARGET, KV_SOFT, KV_HARD = 0.6, 0.7, 0.8, 0.9
N_POLLS_QUEUED = 3
SOFT_TRIM_INTERVAL_S = 12.0
HARD_TRIM_INTERVAL_S = 4.0


class EndpointAdmission:
    """The two caps of one endpoint. Not adaptive, they are the bounds."""

    def __init__(self, *, max_calls: int, max_trajectories: int, adaptive: bool) -> None:
        self._bound_calls = max_calls
        self._bound_trajectories = max_trajectories
        self._adaptive = adaptive
        self.max_calls = min(max_calls, FIRST_CALLS) if adaptive else max_calls
        self.max_trajectories = max_trajectories
        self._round = Round(0.0)
        self._before: tuple[int, float] | None = None
        """Cap and throughput of the round that the cap last grew after."""

        self._is_doubling = True
        self._is_settling = False
        self._retry_s = FIRST_RETRY_S
        self._retry_at = 0.0
        self._cut_at = -CUT_INTERVAL_S
        self._refused_share = 0.0
        """Of the latest calls."""

        self._load_at = -LOAD_EXPIRES_S
        self._n_polls_queued = 0
        self._trimmed_at = -SOFT_TRIM_INTERVAL_S
        self._n_preemptions: int | None = None

    def on_call(
        self, now: float, *, latency_s: float, n_completion_tokens: int, n_in_flight: int
    ) -> list[Adaptation]:
        """Count a call that was answered; `n_in_flight` includes it."""
        if not self._adaptive:
            return []
        self._refused_share -= REFUSAL_SMOOTHING * self._refused_share
        n_calls = self._round.add(now, latency_s, n_completion_tokens, n_in_flight)
        if n_calls < max(self.max_calls, MIN_ROUND_CALLS):
            return []
        done, self._round = self._round, Round(now)
        if self._is_settling:
            self._is_settling = (
                False  # the queue was still filling, so that calls were faster than they will be
            )
            return []
        if now - self._load_at < LOAD_EXPIRES_S or done.mean_in_flight < BINDS * self.max_calls:
            return []
        return self._after_round(now, done.throughput)

    def on_refusal(self, now: float, *, status: int, n_in_flight: int) -> list[Adaptation]:
        """Count a call that was refused for too many of them."""
        if not self._adaptive:
            return []
        self._refused_share += REFUSAL_SMOOTHING * (1 - self._refused_share)
        if self._refused_share < MAX_REFUSED_SHARE or now - self._cut_at < CUT_INTERVAL_S:
            return []
        self._cut_at = now
        self._is_doubling = False
        self._before = None
        self._retry_at = now + CALM_AFTER_REFUSAL_S
        self._retry_s = FIRST_RETRY_S
        in_use = min(self.max_calls, max(1, n_in_flight))
        return self._set_calls(int(CUT * in_use), f"HTTP {status}: the server refuses so many calls")

    def on_load(
        self,
        now: float,
        load: EngineLoad,
        *,
        n_calls_in_flight: int,
        n_calls_waiting: int,
        n_trajectories: int,
    ) -> list[Adaptation]:
        """Act on what the engine's metrics page says."""
        if not self._adaptive:
            return []
        is_first = self._n_preemptions is None
        self._load_at = now
        adaptations = self._begin_by_kv_size(load) if is_first else []
        n_new_preemptions = load.n_preemptions - (self._n_preemptions or 0)
        self._n_preemptions = load.n_preemptions
        if is_first:
            return adaptations
        if n_new_preemptions > 0:
            return self._on_preemptions(now, n_new_preemptions, n_trajectories)
        usage = load.kv_usage or 0.0
        if usage > KV_SOFT:
            return self._trim(now, usage, n_trajectories)
        queued = self._on_queue(load)
        if queued or load.n_waiting or usage >= KV_GROW or now - self._trimmed_at <= HARD_TRIM_INTERVAL_S:
            return queued
        return self._grow(usage, n_calls_in_flight, n_calls_waiting, n_trajectories)

    def set_bounds(self, *, max_calls: int, max_trajectories: int) -> list[Adaptation]:
        """Change what the user allows."""
        was_at_bound = self.max_trajectories == self._bound_trajectories
        self._bound_calls, self._bound_trajectories = max_calls, max_trajectories
        calls = self.max_calls if self._adaptive else max_calls
        trajectories = max_trajectories if was_at_bound else self.max_trajectories
        reason = "the user's limit"
        return [*self._set_calls(calls, reason), *self._set_trajectories(trajectories, reason)]

    def _after_round(self, now: float, throughput: float) -> list[Adaptation]:
        """Compare the throughput of a full round with the one before the cap last grew."""
        before, self._before = self._before, None
        if before is not None:
            cap, slower = before
            follows = FOLLOWS_DOUBLED if self._is_doubling else FOLLOWS
            wanted = slower * (1 + follows * (self.max_calls / cap - 1))
            if throughput < wanted:
                self._is_doubling = False
                self._retry_at = now + self._retry_s
                self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
                more = f"{slower:.3g}/s at {cap}, {throughput:.3g}/s at {self.max_calls}"
                return self._set_calls(cap, f"no more throughput: {more}")
            self._retry_s = FIRST_RETRY_S
            self._is_doubling = self._is_doubling or now - self._cut_at > 60
        if self.max_calls >= self._bound_calls or not (self._is_doubling or now >= self._retry_at):
            return []
        self._before = (self.max_calls, throughput)
        factor = 2.0 if self._is_doubling else GROWTH
        self._is_settling = not self._is_doubling
        return self._set_calls(
            grown(self.max_calls, factor), f"throughput {throughput:.3g}/s, all slots in use"
        )

    def _begin_by_kv_size(self, load: EngineLoad) -> list[Adaptation]:
        if not load.max_kv_tokens:
            return []
        fits = max(8, load.max_kv_tokens // TOKENS_PER_TRAJECTORY)
        return self._set_trajectories(
            min(self.max_trajectories, fits), f"the KV cache holds {load.max_kv_tokens} tokens"
        )

    def _on_preemptions(self, now: float, n: int, n_trajectories: int) -> list[Adaptation]:
        if now - self._cut_at < CUT_INTERVAL_S:
            return []
        self._cut_at = self._trimmed_at = now
        in_use = min(self.max_trajectories, max(1, n_trajectories))
        return self._set_trajectories(int(CUT * in_use), f"{n} preemptions")

    def _trim(self, now: float, usage: float, n_trajectories: int) -> list[Adaptation]:
        interval_s = HARD_TRIM_INTERVAL_S if usage > KV_HARD else SOFT_TRIM_INTERVAL_S
        if now - self._trimmed_at < interval_s:
            return []
        self._trimmed_at = now
        in_use = min(self.max_trajectories, max(1, n_trajectories))
        return self._set_trajectories(int(in_use * KV_TARGET / usage), f"KV cache {usage:.0%} full")

    def _on_queue(self, load: EngineLoad) -> list[Adaptation]:
        if load.n_waiting <= 0.5 * max(1, load.n_running):
            self._n_polls_queued = 0
            return []
        self._n_polls_queued += 1
        if self._n_polls_queued < N_POLLS_QUEUED:
            return []
        self._n_polls_queued = 0
        fits = load.n_running + load.n_waiting // 2
        reason = f"{load.n_waiting} calls queue in the engine beside {load.n_running} running"
        return self._set_calls(min(int(0.9 * self.max_calls), max(1, fits)), reason)

    def _grow(
        self, usage: float, n_calls_in_flight: int, n_calls_waiting: int, n_trajectories: int
    ) -> list[Adaptation]:
        reason = f"KV cache {usage:.0%} full and no queue"
        adaptations: list[Adaptation] = []
        if n_calls_waiting or n_calls_in_flight >= BINDS * self.max_calls:
            factor = 2.0 if self._is_doubling else GROWTH
            adaptations += self._set_calls(grown(self.max_calls, factor), reason)
        if n_trajectories >= BINDS * self.max_trajectories:
            adaptations += self._set_trajectories(grown(self.max_trajectories, GROWTH), reason)
        return adaptations

    def _set_calls(self, calls: int, reason: str) -> list[Adaptation]:
        before, self.max_calls = self.max_calls, max(1, min(calls, self._bound_calls))
        return changed("calls", before, self.max_calls, reason)

    def _set_trajectories(self, trajectories: int, reason: str) -> list[Adaptation]:
        before = self.max_trajectories
        self.max_trajectories = max(1, min(trajectories, self._bound_trajectories))
        return changed("trajectories", before, self.max_trajectories, reason)
