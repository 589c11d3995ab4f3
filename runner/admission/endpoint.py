"""How many trajectories and model calls may be in flight at one endpoint.

Pure: time is a parameter, and nothing here waits. Caps only stop admitting; nobody is sent away.

An endpoint without metrics is felt out as TCP feels out a network: the cap doubles while throughput
follows it, holds where throughput stops growing, is tried a little higher now and then, and is cut when
the server refuses (429, 503). An endpoint with vLLM's metrics is read instead: its queue, its KV cache
and its preemptions say more than any answer (`engine.py`), and nothing grows while they are not known.
"""

from __future__ import annotations

from runner.admission.engine import BINDS, CUT_INTERVAL_S, EngineAdmission, Use
from runner.admission.observed import Adaptation, EngineLoad, changed, grown
from runner.admission.throughput import Round
from runner.config import AdmissionConfig

FOLLOWS = 0.5
FOLLOWS_DOUBLED = 0.25
"""Throughput follows the cap when it grows by at least this share of what the cap grew by; a quarter more of
it is worth another doubling, and too little to be told from noise after a small step."""

MIN_ROUND_CALLS = 8
REFUSAL_SMOOTHING = 0.05
MAX_REFUSED_SHARE = 0.1
"""Fewer refusals are noise, and cost a retry; a server that is too full refuses more than that."""

CALM_AFTER_REFUSAL_S = 5.0
FIRST_RETRY_S = 4.0
MAX_RETRY_S = 60.0


class EndpointAdmission:
    """The two caps of one endpoint. Not adaptive, they are the bounds."""

    def __init__(self, config: AdmissionConfig, *, max_calls: int, max_trajectories: int) -> None:
        self._config = config
        self._adaptive = config.mode == "adaptive"
        self._bound_calls = max_calls
        self._bound_trajectories = max_trajectories
        self.max_calls = self.max_trajectories = 0
        self._begin()

    def _begin(self) -> None:
        """Know nothing."""
        first = min(self._bound_calls, self._config.first_calls)
        self.max_calls = first if self._adaptive else self._bound_calls
        self.max_trajectories = self._bound_trajectories
        self._engine = EngineAdmission(self._config)
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

    def restart(self) -> list[Adaptation]:
        """Begin again, with an engine that was started again: its cache is empty, its counters are zero."""
        calls, trajectories = self.max_calls, self.max_trajectories
        self._begin()
        reason = "the engine was started again"
        return [
            *changed("calls", calls, self.max_calls, reason),
            *changed("trajectories", trajectories, self.max_trajectories, reason),
        ]

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
        if self._engine.has_read or done.mean_in_flight < BINDS * self.max_calls:
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
        return self._set_calls(
            int(self._config.cut * in_use), f"HTTP {status}: the server refuses so many calls"
        )

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
        use = Use(
            n_calls_in_flight=n_calls_in_flight,
            n_calls_waiting=n_calls_waiting,
            n_trajectories=n_trajectories,
            max_calls=self.max_calls,
            max_trajectories=self.max_trajectories,
            growth=2.0 if self._is_doubling else self._config.growth,
        )
        adaptations = []
        for wish in self._engine.on_load(now, load, use):
            set_cap = self._set_calls if wish.what == "calls" else self._set_trajectories
            adaptations += set_cap(wish.cap, wish.reason)
        return adaptations

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
        factor = 2.0 if self._is_doubling else self._config.growth
        self._is_settling = not self._is_doubling
        return self._set_calls(
            grown(self.max_calls, factor), f"throughput {throughput:.3g}/s, all slots in use"
        )

    def _set_calls(self, calls: int, reason: str) -> list[Adaptation]:
        before, self.max_calls = self.max_calls, max(1, min(calls, self._bound_calls))
        return changed("calls", before, self.max_calls, reason)

    def _set_trajectories(self, trajectories: int, reason: str) -> list[Adaptation]:
        before = self.max_trajectories
        self.max_trajectories = max(1, min(trajectories, self._bound_trajectories))
        return changed("trajectories", before, self.max_trajectories, reason)
