"""What a worker is told when it begins is what its driver goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.cluster.coordinator import Coordinator
from runner.cluster.crew import Member
from runner.cluster.desk import Desk
from runner.cluster.hands import Hand, Hands
from runner.cluster.messages import Terms, WorkerInfo
from runner.cluster.serving import Serving
from runner.journal import Journal
from tests.runner.factories import IDENTITY


class Link:
    """A worker that can only begin."""

    def __init__(self) -> None:
        self.terms: Terms | None = None

    async def call(self, method: str, *arguments: Any) -> bool:
        (self.terms,) = arguments
        return True


def member(name: str) -> Member:
    return Member(name, f"node of {name}", Link(), WorkerInfo(name, {}, has_benchmark=True))  # type: ignore[arg-type]


async def test_a_share_that_changes_while_a_worker_is_prepared(tmp_path: Path) -> None:
    """Another one joins while the file is read that the model replays."""
    hands = Hands(concurrency=8)
    coordinator = Coordinator()

    class Crew:
        async def recording(self, of: Member) -> None:
            if of.name == "first":
                serving.join(member("second"))

    with Journal(tmp_path) as journal:
        desk = Desk(journal, IDENTITY, coordinator, give=lambda worker, names: None, on_done=lambda: None)
        crew: Any = Crew()
        serving = Serving(
            crew, hands, coordinator, desk, journal, IDENTITY, grace_s=1.0, drain=lambda reason: None
        )
        first: Hand = serving.join(member("first"))
        assert await serving._has_begun(first)

    told = first.member.link.terms  # type: ignore[attr-defined]
    assert (told.concurrency, told.n_workers) == (4, 2)
    assert first.concurrency == 4
