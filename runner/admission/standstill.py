"""Since when an engine stands still. Pure: time is a parameter."""

from __future__ import annotations

from runner.admission.observed import EngineLoad

QUIET_S = 10.0
"""Without a token for less, an engine may be reading a long prompt: that is the model's time."""


class Standstill:
    """Watches one engine that tells how many tokens it has made, look by look."""

    def __init__(self) -> None:
        self._n_tokens: int | None = None
        self._moved_at = 0.0

    def observe(self, now: float, load: EngineLoad | None) -> float | None:
        """Take in a look, None where it did not answer; return since when it stands still, if it does.

        What it has to do meanwhile it does not do: a reply that is waited for is no longer the model's time.
        """
        if load is not None:
            has_calls = load.n_running + load.n_waiting > 0
            if not has_calls or load.n_generated_tokens != self._n_tokens:
                self._moved_at = now
            self._n_tokens = load.n_generated_tokens
        if self._n_tokens is None or now - self._moved_at < QUIET_S:
            return None
        return self._moved_at
