"""What a worker is told when it begins is what its driver goes by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.cluster.coordinator import Coordinator
from runner.cluster.crew import Member
from runner.cluster.desk import Desk
from runner.cluster.hands import Hand, Hands
from runner.cluster.messages import Share, Terms, WorkerInfo
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
    assert told.share == first.share == Share(4)


def test_what_may_be_in_flight_is_shared_out_anew_as_workers_come_and_go() -> None:
    """Trajectories, and calls where they are limited: of those, each has at least one."""
    hands = Hands(concurrency=2, max_calls=5)

    def joined(name: str) -> Hand:
        hand = Hand(member(name), pump=None)  # type: ignore[arg-type]
        hands.add(hand)
        hand.share = hands.share_of(name)
        hand.has_begun = True
        hands.share_out()
        return hand

    first, second = joined("first"), joined("second")
    assert (first.share, second.share) == (Share(1, 3), Share(1, 2))
    third = joined("third")
    assert (first.share, second.share, third.share) == (Share(1, 2), Share(1, 2), Share(0, 1))
    assert third.share.concurrency == 1
    hands.remove(first)
    hands.remove(second)
    assert hands.share_out() == [third]
    assert third.orders.get_nowait() == ("set_share", (Share(2, 5),))
    assert third.orders.empty()

    for number in range(9):
        joined(f"more{number}")
    assert {hand.share.max_calls for hand in hands} == {1}
