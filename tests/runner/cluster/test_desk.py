"""What becomes of attempts by what workers say of them, in the order in which they say it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cluster.coordinator import Coordinator
from runner.cluster.desk import MAX_UNRECORDED, Desk
from runner.cluster.messages import Begun, Ended, Recorded
from runner.journal import Journal, read_failures
from runner.plan import Attempt
from runner.records import Owner, StopReason
from runner.telemetry.statistics import FinishedAttempt
from tests.runner.factories import IDENTITY, sample

NAME = "s0@1"
CANCELLED = Recorded(
    NAME, b"", (), FinishedAttempt(NAME, StopReason.CANCELLED, Owner.RUNNER, 1, 1.0), is_failure=True
)


class Fixture:
    """A desk with one attempt, and what each worker was given."""

    def __init__(self, journal: Journal) -> None:
        self.coordinator = Coordinator()
        self.given: list[tuple[str, list[str]]] = []
        self.is_done = False
        self.desk = Desk(
            journal,
            IDENTITY,
            self.coordinator,
            give=lambda worker, names: self.given.append((worker, names)),
            on_done=self.done,
        )

    def done(self) -> None:
        self.is_done = True

    async def join(self, worker: str) -> None:
        self.coordinator.add_worker(worker, 1)
        if not self.desk.all_taken:
            await self.desk.feed(iter([Attempt(sample("s0"), 1)]))
        self.desk.dispatch()
        await self.desk.on_message(worker, Begun(NAME), None)


@pytest.fixture(name="at")
def _at(tmp_path: Path) -> Iterator[Fixture]:
    with Journal(tmp_path) as journal:
        yield Fixture(journal)


async def test_what_breaking_workers_had_to_cancel_is_never_given_up(at: Fixture, tmp_path: Path) -> None:
    """And not given back to the worker that cancels it, which has not said yet that it breaks off."""
    workers = [f"w{number}" for number in range(MAX_UNRECORDED + 1)]
    for worker in workers:
        await at.join(worker)
        await at.desk.on_message(worker, CANCELLED, True)
        assert at.given[-1][0] == worker
        assert at.coordinator.owns(worker, NAME)
        at.coordinator.leaving(worker)
        await at.desk.on_message(worker, Ended(NAME), None)
        assert not at.coordinator.owned(worker)

    assert at.given == [(worker, [NAME]) for worker in workers]
    assert not at.is_done
    assert not list(read_failures(tmp_path))


async def test_what_ends_too_often_without_a_line_is_given_up(at: Fixture, tmp_path: Path) -> None:
    for number in range(MAX_UNRECORDED):
        worker = f"w{number}"
        await at.join(worker)
        at.coordinator.leaving(worker)
        await at.desk.on_message(worker, Ended(NAME), None)

    assert at.is_done
    assert [row["attempt"] for row in read_failures(tmp_path)] == [NAME]


@pytest.mark.parametrize("is_draining", [False, True])
async def test_a_worker_that_its_own_driver_ends_speaks_against_no_attempt(
    at: Fixture, tmp_path: Path, is_draining: bool
) -> None:
    """As at the end of the grace period: an attempt that was alone on a lost worker is not given up for it."""
    await at.join("w0")
    assert await at.desk.lose("w0") == (NAME,)
    await at.join("w1")
    at.desk.is_closed = is_draining

    assert await at.desk.lose("w1") == ((NAME,) if is_draining else ())
    assert [row["attempt"] for row in read_failures(tmp_path)] == ([] if is_draining else [NAME])
