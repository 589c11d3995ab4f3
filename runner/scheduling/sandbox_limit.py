"""Lets as many sandboxes be leased as this machine bears."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from runner.admission import SandboxAdmission
from runner.gate import Gate
from runner.scheduling.host_pressure import read_host_pressure


async def adapt_sandboxes(
    gate: Gate, admission: SandboxAdmission, poll_s: float, on_event: Callable[..., Any]
) -> None:
    """Hold `gate` to what `admission` makes of this machine's pressure, until cancelled."""
    loop = asyncio.get_running_loop()
    gate.limit = admission.max_leased
    while True:
        await asyncio.sleep(poll_s)
        pressure = await asyncio.to_thread(read_host_pressure)
        adaptations = admission.on_pressure(
            loop.time(), pressure, n_leased=gate.n_held, n_waiting=gate.n_waiting
        )
        gate.limit = admission.max_leased
        for a in adaptations:
            on_event("adapted", what=a.what, before=a.before, after=a.after, reason=a.reason)
