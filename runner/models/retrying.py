"""Whether, where and when a call that gave no completion is tried again. Pure, but for the jitter."""

from __future__ import annotations

import random
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from runner.errors import ContextOverflow, ModelRefused
from runner.models.endpoint import Answer
from runner.models.window import ReplyTooLong
from runner.models.wire import counts_reply, is_context_overflow, is_reply_too_long, refusal_text

RETRIED_STATUSES = frozenset({408, 429}) | frozenset(range(500, 600))
OVERLOADED_STATUSES = frozenset({429, 503})
FIRST_BACKOFF_S = 0.5


class Failure(NamedTuple):
    """Why a call gave no completion."""

    reason: str
    stays: bool = False
    """Whether the next try goes to the same server: it is well, and says when to come back."""

    wait_s: float = 0.0
    """How long it asks us to wait."""


def read_refusal(answer: Answer, url: str, *, is_first: bool, can_ask_less: bool, now: float) -> Failure:
    """Return why an answer of another status than 200 is no completion, where trying again can help.

    Args:
        answer: what the server at `url` said.
        url: for messages.
        is_first: whether it was asked for an attempt's first turn.
        can_ask_less: whether a shorter reply can be asked for.
        now: Unix seconds.

    Raises:
        ContextOverflow, ModelRefused: it cannot help.
        ReplyTooLong: it can, with a shorter reply.
    """
    status, failure = answer.status, refusal_text(answer.status, answer.body)
    if is_context_overflow(status, answer.body):
        if can_ask_less and counts_reply(answer.body):
            raise ReplyTooLong(failure)
        if is_first and is_reply_too_long(answer.body):
            raise ModelRefused(
                f"{url}: {failure} The task leaves too little room: lower model.request.max_tokens, or serve "
                "the model with a larger window"
            )
        raise ContextOverflow(failure)
    if status not in RETRIED_STATUSES:
        raise ModelRefused(f"{url}: {failure}")
    wait_s = retry_after_s(answer.headers, now)
    return Failure(failure, stays=status == 429 or wait_s is not None, wait_s=wait_s or 0.0)


def backoff_s(n_failed: int, max_backoff_s: float) -> float:
    """Return how long to wait after so many failures before this one."""
    longest_s = min(max_backoff_s, FIRST_BACKOFF_S * 2**n_failed)
    return random.uniform(longest_s / 2, longest_s)


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a Retry-After header asks for (a number or a date), or None."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
