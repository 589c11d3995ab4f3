"""Which worker runs which attempt, and what becomes of the attempts of one that is lost. Pure.

A worker holds a window of attempts, so that it need not ask for each. What a lost worker held is handed
out again, first of all. An attempt that may have taken its workers along is a suspect: it runs alone, at
the end, and is given up when a worker is lost over it twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_SHARED_LOSSES = 3
"""Lost workers on which an attempt ran beside others, before it runs alone."""

MAX_LONE_LOSSES = 2
"""Lost workers on which it was the only one running, before it is given up."""


@dataclass(slots=True)
class _Worker:
    concurrency: int
    owned: dict[str, bool] = field(default_factory=dict)
    """Attempts that it was given and that have not ended, in order, and whether they have begun."""

    has_suspect: bool = False
    """Whether its only attempt is to stay alone."""

    is_leaving: bool = False
    """Whether it begins nothing more."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a lost worker leaves."""

    requeued: tuple[str, ...]
    given_up: tuple[str, ...]


class Coordinator:
    """Attempts by name, workers by name.

    Every attempt that was added is queued, owned by one worker, ended or given up.
    """

    def __init__(self, window_factor: float = 2.0) -> None:
        """`window_factor`: how many attempts a worker may hold, times its concurrency."""
        self._window_factor = window_factor
        self._queue: deque[str] = deque()
        self._suspects: deque[str] = deque()
        self._workers: dict[str, _Worker] = {}
        self._n_shared_losses: Counter[str] = Counter()
        self._n_lone_losses: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued and nothing is owned."""
        return not self._queue and not self._suspects and not any(w.owned for w in self._workers.values())

    @property
    def has_queued(self) -> bool:
        """Whether an attempt waits for a worker."""
        return bool(self._queue or self._suspects)

    @property
    def n_wanted(self) -> int:
        """How many more attempts the workers have room for."""
        room = sum(self._room(worker) for worker in self._workers.values())
        return max(0, room - len(self._queue))

    def add_worker(self, name: str, concurrency: int) -> None:
        """Count a new worker in."""
        self._workers[name] = _Worker(concurrency)

    def set_concurrency(self, name: str, concurrency: int) -> None:
        """Change how many attempts a worker runs at once; 0 for none. What it holds already stays."""
        if name in self._workers:
            self._workers[name].concurrency = concurrency

    def leaving(self, name: str) -> None:
        """Hand nothing more to a worker: it begins nothing any more."""
        if name in self._workers:
            self._workers[name].is_leaving = True

    def add(self, attempt: str) -> None:
        """Queue a new attempt."""
        self._queue.append(attempt)

    def assign(self) -> dict[str, list[str]]:
        """Hand out what is queued, to the least loaded first; return what each worker is given."""
        given: dict[str, list[str]] = {}
        while self._queue and (name := self._least_loaded()) is not None:
            given.setdefault(name, []).append(self._give(name, self._queue.popleft()))
        while self._suspects and not self._queue and (name := self._idle()) is not None:
            self._workers[name].has_suspect = True
            given[name] = [self._give(name, self._suspects.popleft())]
        return given

    def begun(self, worker: str, attempt: str) -> None:
        """A worker began one of its attempts."""
        if self.owns(worker, attempt):
            self._workers[worker].owned[attempt] = True

    def owns(self, worker: str, attempt: str) -> bool:
        """Whether a worker may still say what came of an attempt."""
        return worker in self._workers and attempt in self._workers[worker].owned

    def owned(self, worker: str) -> tuple[str, ...]:
        """Return what a worker holds."""
        return tuple(self._workers[worker].owned) if worker in self._workers else ()

    def running(self) -> list[str]:
        """Return the attempts that have begun."""
        return [a for worker in self._workers.values() for a, has_begun in worker.owned.items() if has_begun]

    def owner_of(self, attempt: str) -> str | None:
        """Return the worker that holds an attempt."""
        return next((name for name, worker in self._workers.items() if attempt in worker.owned), None)

    def ended(self, worker: str, attempt: str) -> bool:
        """An attempt needs no worker any more. Return whether it was this worker's."""
        if not self.owns(worker, attempt):
            return False
        del self._workers[worker].owned[attempt]
        self._workers[worker].has_suspect = False
        return True

    def withdrawals(self) -> dict[str, list[str]]:
        """Return attempts that workers hold and have not begun while others have nothing to do.

        Nothing changes before `returned`: a worker may have begun some by the time that it is asked.
        """
        if self._queue:
            return {}
        n_free = sum(
            max(0, worker.concurrency - len(worker.owned))
            for worker in self._workers.values()
            if not worker.has_suspect and not worker.is_leaving
        )
        chosen: dict[str, list[str]] = {}
        for name, worker in self._workers.items():
            n_over = len(worker.owned) - (0 if worker.is_leaving else worker.concurrency)
            waiting = [attempt for attempt, has_begun in worker.owned.items() if not has_begun]
            n = min(n_free, n_over, len(waiting))
            if n > 0:
                chosen[name] = waiting[-n:]
                n_free -= n
        return chosen

    def returned(self, worker: str, attempts: Iterable[str]) -> None:
        """A worker gave attempts back that it had not begun."""
        self._queue.extendleft(reversed([name for name in attempts if self.ended(worker, name)]))

    def retire(self, worker: str) -> tuple[str, ...]:
        """A worker has ended in good order; return what it held, which is queued again."""
        held = self.owned(worker)
        self.returned(worker, held)
        self._workers.pop(worker, None)
        return held

    def lose(self, worker: str) -> Loss:
        """A worker is lost: nobody knows why. What it held is queued again, or given up."""
        lost = self._workers.pop(worker, _Worker(0))
        owned = lost.owned
        # That one has begun may not have been heard any more: the first ones may have, too.
        running = {attempt for attempt, has_begun in owned.items() if has_begun}
        running.update(list(owned)[: max(1, lost.concurrency)])
        blames = self._n_lone_losses if len(running) == 1 else self._n_shared_losses
        blames.update(running)
        given_up = [a for a in owned if self._n_lone_losses[a] >= MAX_LONE_LOSSES]
        suspects = [a for a in owned if self._is_suspect(a) and a not in given_up]
        innocent = [a for a in owned if a not in given_up and a not in suspects]
        self._queue.extendleft(reversed(innocent))
        self._suspects.extend(suspects)
        return Loss((*innocent, *suspects), tuple(given_up))

    def _is_suspect(self, attempt: str) -> bool:
        return self._n_shared_losses[attempt] >= MAX_SHARED_LOSSES or self._n_lone_losses[attempt] > 0

    def _room(self, worker: _Worker) -> int:
        if worker.has_suspect or worker.is_leaving or worker.concurrency < 1:
            return 0
        return max(0, max(1, int(self._window_factor * worker.concurrency)) - len(worker.owned))

    def _least_loaded(self) -> str | None:
        free = [name for name, worker in self._workers.items() if self._room(worker)]
        return min(free, key=self._load, default=None)

    def _load(self, name: str) -> float:
        return len(self._workers[name].owned) / max(1, self._workers[name].concurrency)

    def _idle(self) -> str | None:
        return next((n for n, w in self._workers.items() if self._room(w) and not w.owned), None)

    def _give(self, name: str, attempt: str) -> str:
        self._workers[name].owned[attempt] = False
        return attempt
