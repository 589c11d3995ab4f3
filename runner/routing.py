"""Which endpoint a trajectory talks to. Pure: time is a parameter, endpoints are numbers.

A trajectory sticks to one endpoint, whose prefix cache knows it. New ones go to the least loaded, but where
another epoch of their sample began, whose prompt is the same, if that one bears no more than its share. An
endpoint that fails several calls in a row is ejected; its trajectories move to the others, and it is
probed, less and less often. One that answers probes is on trial: it gets one trajectory, and is back when
that has its completion, for a server may list its models and answer no call. An engine of ours that is lost
is down: it is left at once and not probed, for whoever says so says when it is up again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_FAILURES = 3
"""Calls in a row that fail before an endpoint is ejected."""

FIRST_PROBE_S = 1.0
MAX_PROBE_S = 30.0

MAX_OVER_SHARE = 1.5
SLACK_TRAJECTORIES = 4
"""An endpoint is overloaded with more than so many times its share of the trajectories, and so many more than
that; and with more than it bears."""

MAX_HOMES = 4096
"""Samples for which it is remembered where an epoch began; by then their prompts have left most caches."""


@dataclass(slots=True)
class _Endpoint:
    n_pinned: int = 0
    n_failures: int = 0
    """In a row."""

    ejected_at: float | None = None
    next_probe_at: float = 0.0
    probe_s: float = FIRST_PROBE_S
    is_down: bool = False
    """Known not to be there."""

    is_on_trial: bool = False
    """Ejected, but it answers probes."""

    tried_by: str | None = None
    """The one attempt that may call it while it is on trial."""

    def takes(self, attempt: str) -> bool:
        """Whether an attempt may call it while others are there to be called."""
        is_tried = self.is_on_trial and self.tried_by in (None, attempt)
        return not self.is_down and (self.ejected_at is None or is_tried)


class Router:
    """Endpoints 0 to n - 1. `capacity_of` gives how many trajectories an endpoint bears."""

    def __init__(self, n_endpoints: int, capacity_of: Callable[[int], int]) -> None:
        self._endpoints = [_Endpoint() for _ in range(n_endpoints)]
        self._capacity_of = capacity_of
        self._pins: dict[str, int] = {}
        self._homes: OrderedDict[str, int] = OrderedDict()
        """Where an epoch of a sample began, the latest last."""

    def pick(self, attempt: str) -> int:
        """Return the endpoint of an attempt `sample_id@epoch`: its own, or one of those that take it.

        That is where another epoch of the sample began, unless it is overloaded, or else the least loaded.
        """
        pinned = self._pins.get(attempt)
        takers = self._takers(attempt) or self._up()
        if pinned is not None and (pinned in takers or not takers):
            self._note_trial(attempt, pinned)
            return pinned
        chosen = self._home(attempt, takers)
        if chosen is None:
            chosen = min(takers or range(len(self._endpoints)), key=self._load)
        self._pin(attempt, chosen)
        return chosen

    def move(self, attempt: str, away_from: int) -> bool:
        """Let an attempt stick to another endpoint that takes it, if there is one; return whether it does."""
        others = [index for index in self._takers(attempt) if index != away_from]
        if not others:
            return False
        self._pin(attempt, min(others, key=self._load))
        return True

    def forget(self, attempt: str) -> None:
        """An attempt has ended."""
        pinned = self._pins.pop(attempt, None)
        if pinned is not None:
            self._endpoints[pinned].n_pinned -= 1
            if self._endpoints[pinned].tried_by == attempt:
                self._endpoints[pinned].tried_by = None

    def on_success(self, index: int) -> bool:
        """An endpoint gave a completion. Return whether it was ejected until now."""
        endpoint = self._endpoints[index]
        was_ejected = endpoint.ejected_at is not None
        self._endpoints[index] = _Endpoint(n_pinned=endpoint.n_pinned, is_down=endpoint.is_down)
        return was_ejected

    def add(self) -> None:
        """There is one more endpoint; it is down."""
        self._endpoints.append(_Endpoint(is_down=True))

    def set_down(self, index: int) -> None:
        """An endpoint is not there any more."""
        self._endpoints[index].is_down = True

    def set_up(self, index: int) -> None:
        """An endpoint is there, or there again: what it did before does not count."""
        self._endpoints[index] = _Endpoint(n_pinned=self._endpoints[index].n_pinned)

    def on_probe(self, index: int) -> None:
        """An ejected endpoint answered a probe."""
        self._endpoints[index].is_on_trial = self._endpoints[index].ejected_at is not None

    def on_failure(self, now: float, index: int) -> bool:
        """A call failed by the endpoint's fault. Return whether it is ejected now and was not before."""
        endpoint = self._endpoints[index]
        endpoint.n_failures += 1
        if endpoint.is_on_trial:
            endpoint.is_on_trial, endpoint.tried_by = False, None
            endpoint.next_probe_at = now + endpoint.probe_s
        if endpoint.ejected_at is not None or endpoint.n_failures < MAX_FAILURES:
            return False
        self.eject(now, index)
        return True

    def eject(self, now: float, index: int) -> None:
        """Send no attempt to an endpoint until it has answered a probe."""
        endpoint = self._endpoints[index]
        endpoint.ejected_at = now
        endpoint.next_probe_at = now + endpoint.probe_s

    def take_probes(self, now: float) -> Sequence[int]:
        """Return the ejected endpoints that should be probed now; each is due again later."""
        due = [
            index
            for index, endpoint in enumerate(self._endpoints)
            if endpoint.ejected_at is not None
            and not (endpoint.is_on_trial or endpoint.is_down)
            and now >= endpoint.next_probe_at
        ]
        for index in due:
            endpoint = self._endpoints[index]
            endpoint.probe_s = min(2 * endpoint.probe_s, MAX_PROBE_S)
            endpoint.next_probe_at = now + endpoint.probe_s
        return due

    def is_ready(self, index: int) -> bool:
        """Whether an endpoint is there and not ejected."""
        return self.is_up(index) and self._endpoints[index].ejected_at is None

    def is_up(self, index: int) -> bool:
        """Whether an endpoint is there, as far as is known."""
        return not self._endpoints[index].is_down

    def n_pinned(self, index: int) -> int:
        """How many attempts stick to an endpoint."""
        return self._endpoints[index].n_pinned

    def _takers(self, attempt: str) -> list[int]:
        return [index for index, endpoint in enumerate(self._endpoints) if endpoint.takes(attempt)]

    def _up(self) -> list[int]:
        return [index for index in range(len(self._endpoints)) if self.is_up(index)]

    def _home(self, attempt: str, takers: Sequence[int]) -> int | None:
        """Return where other epochs of the sample begin, if that is one of the takers and not overloaded."""
        sample, _, _ = attempt.rpartition("@")
        home = self._homes.get(sample)
        if home is None:
            return None
        if home not in takers:
            del self._homes[sample]
            return None
        self._homes.move_to_end(sample)
        return None if self._is_overloaded(home, takers) else home

    def _is_overloaded(self, index: int, takers: Sequence[int]) -> bool:
        """Whether one more trajectory is too many for it, beside what the others bear."""
        capacities = {taker: max(1, self._capacity_of(taker)) for taker in takers}
        n_pinned = 1 + sum(self._endpoints[taker].n_pinned for taker in takers)
        share = n_pinned * capacities[index] / sum(capacities.values())
        most = min(capacities[index], max(MAX_OVER_SHARE * share, share + SLACK_TRAJECTORIES))
        return 1 + self._endpoints[index].n_pinned > most

    def _pin(self, attempt: str, index: int) -> None:
        self.forget(attempt)
        self._pins[attempt] = index
        self._homes.setdefault(attempt.rpartition("@")[0], index)
        if len(self._homes) > MAX_HOMES:
            self._homes.popitem(last=False)
        self._endpoints[index].n_pinned += 1
        self._note_trial(attempt, index)

    def _note_trial(self, attempt: str, index: int) -> None:
        endpoint = self._endpoints[index]
        if endpoint.is_on_trial and endpoint.tried_by is None:
            endpoint.tried_by = attempt

    def _load(self, index: int) -> tuple[float, int]:
        n_pinned = self._endpoints[index].n_pinned
        return n_pinned / max(1, self._capacity_of(index)), n_pinned
