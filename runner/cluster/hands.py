"""The workers that take part in a run now, each with its share of the trajectories."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from runner.cluster.crew import Member
from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.pump import Pump


@dataclass(slots=True, eq=False)
class Hand:
    """A worker that takes part."""

    member: Member
    pump: Pump
    concurrency: int = 0
    has_begun: bool = False
    has_answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether it has begun, or cannot."""

    inbox: asyncio.Queue[list[str]] = field(default_factory=asyncio.Queue)
    """Attempts that it is to be given."""

    is_giving_back: bool = False

    @property
    def name(self) -> str:
        """That of the worker."""
        return self.member.name


class Hands:
    """All of them, by name; what they are told, they are told by tasks of their own."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        """Trajectories in flight, on all together."""

        self._hands: dict[str, Hand] = {}
        self._telling: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Hand]:
        return iter(self._hands.values())

    def __len__(self) -> int:
        return len(self._hands)

    def __getitem__(self, name: str) -> Hand:
        return self._hands[name]

    def add(self, hand: Hand) -> None:
        """Count one in."""
        self._hands[hand.name] = hand

    def remove(self, hand: Hand) -> None:
        """Count one out."""
        self._hands.pop(hand.name, None)

    def share_of(self, name: str) -> int:
        """Return how many of all trajectories a worker may have in flight."""
        share, n_over = divmod(self.concurrency, len(self._hands))
        return max(1, share + (list(self._hands).index(name) < n_over))

    def share_out(self) -> list[Hand]:
        """Tell workers their shares where these have changed; return which."""
        changed = []
        for hand in self:
            share = self.share_of(hand.name)
            if hand.has_begun and share != hand.concurrency:
                hand.concurrency = share
                self.tell(hand, "set_concurrency", share)
                changed.append(hand)
        return changed

    def tell_all(self, method: str, *arguments: Any) -> None:
        """Call a method of all workers that have begun."""
        for hand in self:
            self.tell(hand, method, *arguments)

    def tell(self, hand: Hand, method: str, *arguments: Any) -> None:
        """Call a method of a worker that has begun; that it is lost shows elsewhere."""
        if hand.has_begun:
            task = asyncio.get_running_loop().create_task(_tell(hand, method, *arguments))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Wait until everybody is told what they were to be told."""
        while self._telling:
            await asyncio.wait(self._telling)


async def _tell(hand: Hand, method: str, *arguments: Any) -> None:
    with suppress(WorkerLost, WorkerUnavailable):
        await hand.member.link.call(method, *arguments)
