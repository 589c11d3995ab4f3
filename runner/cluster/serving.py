"""Lets one worker work, from its beginning to its end: it is given attempts, told what to do, and heard."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from runner.cluster.coordinator import Coordinator
from runner.cluster.crew import CLOSE_TIMEOUT_S, Crew, Member
from runner.cluster.desk import Desk
from runner.cluster.hands import Hand, Hands
from runner.cluster.links import WorkerLost, WorkerUnavailable
from runner.cluster.messages import Over, Terms
from runner.cluster.pump import Pump
from runner.errors import JournalError, RunnerError, write_error
from runner.journal import Journal
from runner.recorder import RunIdentity
from sandbox_pool import SandboxError

logger = logging.getLogger(__name__)

STAGING = ".workers"
"""In the run directory: folders of workers that see it."""

BEGIN_TIMEOUT_S = 120.0
"""How long a worker may take to connect to the model."""

SUBMIT_LINGER_S = 0.02
"""How long an attempt waits for others on the way to a worker, which has some in hand."""

DRAINED_CLOSE_TIMEOUT_S = 1.0
"""How long a worker may take to close where the run is to end soon."""


class Serving:
    """Serves the workers of one run, any number at once. `drain` ends the run for a reason."""

    def __init__(
        self,
        crew: Crew,
        hands: Hands,
        coordinator: Coordinator,
        desk: Desk,
        journal: Journal,
        identity: RunIdentity,
        *,
        grace_s: float,
        drain: Callable[[str], None],
    ) -> None:
        self._crew = crew
        self._hands = hands
        self._coordinator = coordinator
        self._desk = desk
        self._journal = journal
        self._identity = identity
        self._grace_s = grace_s
        self._drain = drain
        self._has_had_one = False
        """Whether a worker of this run has begun."""

    def join(self, member: Member) -> Hand:
        """Count a worker in that is to be served."""
        hand = Hand(member, Pump(member.name, member.link, self._desk.intake, self._coordinator.owns))
        self._hands.add(hand)
        return hand

    async def serve(self, hand: Hand, group: asyncio.TaskGroup) -> None:
        """Let a worker work until it is over or lost; what is done beside that is done in the group.

        Raises what keeps the last of all workers from working, and what a worker says is a bug.
        """
        works: list[asyncio.Task[None]] = []
        over = None
        try:
            if await self._has_begun(hand):
                works = [group.create_task(work) for work in (self._submit(hand), self._pass_on(hand))]
                over = await hand.pump.hear(partial(self._desk.on_message, hand.name))
                self._on_over(hand, over)
        except (WorkerLost, WorkerUnavailable) as error:
            _cancel(works)
            await self._on_lost(hand, str(error))
        finally:
            _cancel(works)
            hand.has_answered.set()
            self._hands.remove(hand)
            self._desk.totals.gone(hand.name)
            if over is None:
                self._crew.drop(hand.member)
        self.share_out()
        if over is not None:
            is_ending = self._hands.draining is not None
            await self._crew.dismiss(hand.member, DRAINED_CLOSE_TIMEOUT_S if is_ending else CLOSE_TIMEOUT_S)

    def share_out(self) -> None:
        """Give each worker its share of what may be in flight."""
        for hand in self._hands.share_out():
            self._coordinator.set_concurrency(hand.name, hand.share.n_attempts)
        self._desk.dispatch()

    async def take_back(self, hand: Hand, names: list[str]) -> None:
        """Hand attempts out again that a worker holds, unless it begins them first."""
        with suppress(WorkerLost):
            given_back = await hand.pump.once("withdraw", "withdraw", names)
            self._coordinator.returned(hand.name, given_back)
            self._desk.dispatch()
        hand.is_giving_back = False

    async def _has_begun(self, hand: Hand) -> bool:
        """Begin; return False where a worker cannot. Raises its error where none could before it."""
        try:
            await self._begin(hand)
        except (WorkerLost, WorkerUnavailable) as error:
            self._crew.failed(hand.member.node, error)
            raise
        except Exception as error:  # whatever a node lacks is no reason to end the others' work
            self._crew.failed(hand.member.node, error)
            self._event("worker_failed", worker=hand.name, reason=str(error))
            logger.warning("worker %s cannot begin: %s", hand.name, error)
            if len(self._hands) == 1 and not self._has_had_one:
                raise
            return False
        self._has_had_one = True
        hand.has_answered.set()
        self.share_out()
        return True

    async def _begin(self, hand: Hand) -> None:
        terms = await self._terms(hand)
        hand.share = terms.share
        try:
            async with asyncio.timeout(BEGIN_TIMEOUT_S):
                sees_run_dir = await hand.member.link.call("begin", terms)
        except TimeoutError:
            raise WorkerLost(f"it did not connect to the model within {BEGIN_TIMEOUT_S:g} s") from None
        self._coordinator.add_worker(hand.name, hand.share.n_attempts)
        info = hand.member.info
        details = {"sees_run_dir": sees_run_dir, "has_benchmark": info.has_benchmark}
        self._event("worker_joined", worker=hand.name, node=hand.member.node, **details)
        self._hands.begun(hand, terms.endpoints)

    async def _terms(self, hand: Hand) -> Terms:
        nonce = uuid4().hex
        # The name is new: a worker of an earlier process may still hold what it had on a network's disk.
        staging = hand.staging = self._journal.run_dir.absolute() / STAGING / f"{hand.name}-{nonce[:8]}"
        await asyncio.to_thread(_make_staging, staging, nonce)
        recording = await self._crew.recording(hand.member)  # others may come and go meanwhile
        return Terms(
            identity=self._identity,
            share=self._hands.share_of(hand.name),
            grace_s=self._grace_s,
            staging=str(staging),
            nonce=nonce,
            endpoints=self._hands.endpoints,
            recording=recording,
        )

    async def _submit(self, hand: Hand) -> None:
        """Give a worker what it is to have, some at a time."""
        with suppress(WorkerLost):  # who hears it learns that too
            while True:
                names = await hand.inbox.get()
                await asyncio.sleep(SUBMIT_LINGER_S)
                while not hand.inbox.empty():
                    names += hand.inbox.get_nowait()
                left = self._desk.held(hand.name, names)
                while left:
                    prepare = partial(self._desk.assignments, left, hand.member.info)
                    some = await asyncio.to_thread(prepare)
                    del left[: len(some)]
                    await hand.pump.once("submit", "submit", some)

    async def _pass_on(self, hand: Hand) -> None:
        """Tell a worker what it is to be told, in order."""
        with suppress(WorkerLost):
            while True:
                method, arguments = await hand.orders.get()
                await hand.pump.once("orders", method, *arguments)

    def _on_over(self, hand: Hand, over: Over) -> None:
        """A worker's scheduler has ended: because nothing is left, or because it cannot go on."""
        held = self._coordinator.retire(hand.name)
        if over.error is None and over.drained is None:
            return
        why = str(over.error or over.drained)
        self._crew.exclude(hand.member.node)
        self._event("worker_gave_up", worker=hand.name, reason=why, n_requeued=len(held))
        logger.warning("worker %s gave up: %s", hand.name, why)
        is_last = len(self._hands) == 1
        if over.error is not None and (is_last or _is_bug(over.error)):
            raise over.error
        if is_last:
            self._drain(why)
        self._desk.dispatch()

    async def _on_lost(self, hand: Hand, why: str) -> None:
        requeued = await self._desk.lose(hand.name)
        if hand.staging is not None:
            await asyncio.to_thread(partial(shutil.rmtree, hand.staging, ignore_errors=True))
        self._event("worker_lost", worker=hand.name, reason=why, n_requeued=len(requeued))
        logger.warning("worker %s is lost: %s. %d attempts are requeued", hand.name, why, len(requeued))

    def _event(self, name: str, **details: Any) -> None:
        with suppress(JournalError):  # the next line says it
            self._journal.event(name, **details)


def _is_bug(error: Exception) -> bool:
    """Whether an error would be the same on another node: it is neither its disk's nor its sandboxes'."""
    return not isinstance(error, RunnerError | SandboxError | OSError)


def _cancel(works: list[asyncio.Task[None]]) -> None:
    for work in works:
        work.cancel()


def _make_staging(folder: Path, nonce: str) -> None:
    try:
        folder.mkdir(parents=True)
        (folder / nonce).touch()
    except OSError as error:
        raise write_error(folder, error) from error
