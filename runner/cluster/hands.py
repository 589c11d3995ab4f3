"""The workers that take part in a run now, each with its share of the trajectories."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.cluster.crew import Member
from runner.cluster.messages import Share
from runner.cluster.pump import Pump
from runner.endpoint_table import EngineEndpoint


@dataclass(slots=True, eq=False)
class Hand:
    """A worker that takes part."""

    member: Member
    pump: Pump
    share: Share = field(default_factory=Share)
    has_begun: bool = False
    has_answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether it has begun, or cannot."""

    inbox: asyncio.Queue[list[str]] = field(default_factory=asyncio.Queue)
    """Attempts that it is to be given."""

    orders: asyncio.Queue[tuple[str, tuple[Any, ...]]] = field(default_factory=asyncio.Queue)
    """What it is to be told: methods and their arguments."""

    is_giving_back: bool = False
    staging: Path | None = None
    """Its folder in the run directory."""

    @property
    def name(self) -> str:
        """That of the worker."""
        return self.member.name

    def tell(self, method: str, *arguments: Any) -> None:
        """Let a method be called, behind those before it, once it has begun."""
        if self.has_begun:
            self.orders.put_nowait((method, arguments))


class Hands:
    """All of them, by name, and what they are told: those that begin later, too."""

    def __init__(self, concurrency: int, max_calls: int | None = None) -> None:
        """`max_calls`: in flight at each endpoint, from all together; None: as many as trajectories."""
        self.concurrency = concurrency
        """Trajectories in flight, on all together."""

        self._max_calls = max_calls
        self.paused: str | None = None
        self.draining: str | None = None
        self.endpoints: tuple[EngineEndpoint, ...] = ()
        self._is_finishing = False
        self._hands: dict[str, Hand] = {}

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

    def share_of(self, name: str) -> Share:
        """Return what a worker may have in flight; of calls at least one, or its trajectories would stand."""
        calls = None if self._max_calls is None else max(1, self._part(self._max_calls, name))
        return Share(self._part(self.concurrency, name), calls)

    def _part(self, of_all: int, name: str) -> int:
        part, n_over = divmod(of_all, len(self._hands))
        return part + (list(self._hands).index(name) < n_over)

    def share_out(self) -> list[Hand]:
        """Tell workers their shares where these have changed; return which."""
        changed = []
        for hand in self:
            share = self.share_of(hand.name)
            if hand.has_begun and share != hand.share:
                hand.share = share
                hand.tell("set_share", share)
                changed.append(hand)
        return changed

    def begun(self, hand: Hand, endpoints: tuple[EngineEndpoint, ...]) -> None:
        """Tell a worker that has begun what the others were told; `endpoints` it knows already."""
        hand.has_begun = True
        if self.endpoints != endpoints:
            hand.tell("set_endpoints", self.endpoints)
        if self.paused is not None:
            hand.tell("pause", self.paused)
        if self.draining is not None:
            hand.tell("drain", self.draining)
        elif self._is_finishing:
            hand.tell("finish")

    def pause(self, reason: str) -> None:
        """Let nobody begin anything until `resume`."""
        self.paused = reason
        self._tell_all("pause", reason)

    def resume(self) -> None:
        """End a pause."""
        self.paused = None
        self._tell_all("resume")

    def drain(self, reason: str) -> None:
        """Let nobody begin anything more; a second call ends the grace period of what runs."""
        self.draining = self.draining or reason
        self._tell_all("drain", reason)

    def finish(self) -> None:
        """Let everybody end with what they have."""
        self._is_finishing = True
        self._tell_all("finish")

    def set_endpoints(self, table: tuple[EngineEndpoint, ...]) -> None:
        """Let everybody know which engines there are."""
        self.endpoints = table
        self._tell_all("set_endpoints", table)

    def _tell_all(self, method: str, *arguments: Any) -> None:
        for hand in self:
            hand.tell(method, *arguments)
