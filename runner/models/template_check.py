"""Whether a chat template lets a conversation go on in token ids, and what it writes between. Pure.

What the model was told and said stays, as ids; behind a reply stands what the template writes from a reply's
end to the next reply's beginning. That is what it would have shown the model only if it writes earlier turns
the same at each turn, as they were, and the same between any two. Some do not: they drop what the model
thought, strip white space, or move the system prompt. Texts are compared, not ids, for the ids of a text
depend on what stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Message = dict[str, Any]

SYSTEM: Message = {"role": "system", "content": "You run code."}
QUESTION: Message = {"role": "user", "content": "How much is 6 * 7?"}
OBSERVATION: Message = {"role": "user", "content": "42"}

REPLIES = (
    ("a reply", "I compute it."),
    ("white space at the ends of a reply", "\n\n It is computed. \n\n"),
    ("what the model thought", "<think>\nSix times seven.\n</think>\n\nIt is 42."),
    ("a later reply", "It is still 42."),
)
"""What a probing conversation holds, and what each of them shows."""

STUB_QUESTION: Message = {"role": "user", "content": "x"}
STUB_REPLY: Message = {"role": "assistant", "content": "ok"}
OTHER_REPLY: Message = {"role": "assistant", "content": "hm"}
STUB = (STUB_QUESTION, STUB_REPLY)
"""Stands for all that was said, where only what follows is wanted."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the template writes it, with the beginning of the next reply."""

    ids: tuple[int, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Bridge:
    """What leads from a reply to the next."""

    prefix: tuple[int, ...]
    """The ids of `STUB` up to where its reply ends, in any conversation that begins with it."""

    def tail(self, ids: Sequence[int]) -> Sequence[int] | None:
        """Return what follows in a conversation that begins with the stub; None if it is not there."""
        n = len(self.prefix)
        return ids[n:] if tuple(ids[:n]) == self.prefix and len(ids) > n else None


def probes(*, with_system: bool) -> list[list[Message]]:
    """Return conversations that go on, each a turn longer than the one before."""
    conversation = [*([SYSTEM] if with_system else []), QUESTION]
    found = [list(conversation)]
    for _, reply in REPLIES:
        conversation += [{"role": "assistant", "content": reply}, OBSERVATION]
        found.append(list(conversation))
    return found


def stub_probes() -> list[list[Message]]:
    """Return the stub's question, the stub with an observation, and the same with another reply."""
    return [[STUB_QUESTION], [*STUB, OBSERVATION], [STUB_QUESTION, OTHER_REPLY, OBSERVATION]]


def stub_prefix(stub: Sequence[Rendered]) -> tuple[int, ...]:
    """Return the ids of the stub up to where its reply ends: behind it, what its reply was does not matter.

    `stub` are the `stub_probes`, rendered.
    """
    _, one, other = stub
    n_equal = 0
    for a, b in zip(reversed(one.ids), reversed(other.ids), strict=False):
        if a != b:
            break
        n_equal += 1
    return one.ids[: len(one.ids) - n_equal]


def judge_template(rendered: Sequence[Rendered], stub: Sequence[Rendered], prefix_text: str) -> str | None:
    """Return why a template does not let a conversation go on in ids; None if it does.

    Args:
        rendered: `probes`, rendered.
        stub: `stub_probes`, rendered.
        prefix_text: the text of `stub_prefix`.
    """
    opening, bridged, _ = stub
    if prefix_text != opening.text + STUB_REPLY["content"]:
        if not bridged.text.startswith(opening.text + STUB_REPLY["content"]):
            return _problem(opening.text, STUB_REPLY["content"], bridged.text).format(what=REPLIES[0][0])
        return "its tokenizer joins the end of a reply to what the chat template writes behind it"
    tail = bridged.text[len(prefix_text) :]
    for (what, reply), (earlier, later) in zip(REPLIES, pairwise(rendered), strict=True):
        if later.text != earlier.text + reply + tail:
            return _problem(earlier.text, reply, later.text).format(what=what)
    return None


def _problem(earlier: str, reply: str, later: str) -> str:
    """Return how a prompt is another than the one before, the reply to it, and what follows any reply."""
    if not later.startswith(earlier):
        return (
            "its chat template writes what stood before {what} in another way when the conversation goes on"
        )
    if not later.startswith(earlier + reply):
        return "its chat template does not keep {what} as it was when the conversation goes on"
    return "its chat template writes something else behind {what} than behind other replies"
