"""Why a try ended, and whose doing it was: each error of a client or a sandbox has one owner."""

from __future__ import annotations

import pytest

from bench_data import Sample
from runner.config import Limits
from runner.errors import ContextOverflow, ModelError, ModelRefused, ModelUnavailable, ReplayEnded
from runner.models.conversation import Conversation
from runner.records import Owner, StopReason, Timings
from runner.trajectory.endings import Ending, ending_of_model_error, ending_of_sandbox_error, ending_of_time
from runner.trajectory.outcome import Outcome
from sandbox_pool import SandboxError, SandboxSetupError, SandboxStartError

SAMPLE = Sample("s1", ({"role": "user", "content": "x"},))


def owner(ending: Ending) -> Owner:
    """Return whose doing an outcome that ended so is."""
    outcome = Outcome(Conversation([]))
    outcome.stop(*ending)
    return outcome.owner


@pytest.mark.parametrize(
    ("error", "reason", "whose"),
    [
        (ContextOverflow("full"), StopReason.CONTEXT_OVERFLOW, Owner.MODEL),
        (ReplayEnded("no more"), StopReason.MODEL_ERROR, Owner.MODEL),
        (ModelUnavailable("gone"), StopReason.ENGINE_ERROR, Owner.ENGINE),
        (ModelRefused("400"), StopReason.MODEL_ERROR, Owner.ENGINE),
    ],
)
def test_error_of_the_client(error: ModelError, reason: StopReason, whose: Owner) -> None:
    """Only what the conversation itself brought about is the model's."""
    ending = ending_of_model_error(error)
    assert (ending.reason, ending.error, owner(ending)) == (reason, str(error), whose)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SandboxSetupError("NameError"), "the setup cell of sample s1 failed; correct it"),
        (SandboxStartError("no memory"), "SandboxStartError: no memory"),
    ],
)
def test_error_of_the_sandbox(error: SandboxError, says: str) -> None:
    """It is never the model's, and says which sample a setup cell belongs to."""
    ending = ending_of_sandbox_error(error, SAMPLE)
    assert (ending.reason, owner(ending)) == (StopReason.SANDBOX_ERROR, Owner.SANDBOX)
    assert says in str(ending.error)


@pytest.mark.parametrize(
    ("sandbox_wait_s", "call_wait_s", "is_lost", "whose"),
    [
        (9.0, 1.0, True, Owner.SANDBOX),
        (1.0, 9.0, True, Owner.ENGINE),
        (9.0, 1.0, False, Owner.MODEL),
    ],
)
def test_time(sandbox_wait_s: float, call_wait_s: float, is_lost: bool, whose: Owner) -> None:
    """Wall time that was mostly waited is whose the longer queue was; else it is the model's."""
    timings = Timings(sandbox_wait_s=sandbox_wait_s, call_wait_s=call_wait_s)
    ending = ending_of_time(timings, Limits(wall_s=12).wall_s, is_lost_to_waits=is_lost)

    assert (ending.reason, owner(ending)) == (StopReason.TIME_LIMIT, whose)
    assert (ending.error is not None) == is_lost
    assert not is_lost or "9.0 s" in str(ending.error)
