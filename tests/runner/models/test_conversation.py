"""The messages that a model sees first."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runner.models.conversation import merge_user_messages, opening_messages
from tests.runner.factories import sample

TWO = ({"role": "user", "content": "files"}, {"role": "user", "content": "task"})


def test_consecutive_user_messages_are_merged_or_kept() -> None:
    """Strict templates get one user message, upstream's form keeps two."""
    two = sample(messages=TWO)
    system = {"role": "system", "content": "s"}

    assert opening_messages(two, "s", merge=True) == [system, {"role": "user", "content": "files\n\ntask"}]
    assert opening_messages(two, "s", merge=False) == [system, *TWO]


def test_system_prompt_is_left_out_when_empty_or_the_samples_own() -> None:
    """There is at most one system message, and a sample's own wins."""
    own = sample(messages=({"role": "system", "content": "mine"}, *TWO))

    assert opening_messages(sample(), "", merge=True)[0]["role"] == "user"
    assert [m["content"] for m in opening_messages(own, "s", merge=False)] == ["mine", "files", "task"]


@given(st.lists(st.sampled_from(["user", "assistant", "system"])))
def test_merging_loses_no_text(roles: list[str]) -> None:
    """After merging no two user messages are neighbours, and all text is there in order."""
    messages = [{"role": role, "content": str(number)} for number, role in enumerate(roles)]
    merged = merge_user_messages(messages)
    neighbours = [(a["role"], b["role"]) for a, b in itertools.pairwise(merged)]

    assert ("user", "user") not in neighbours
    assert (
        "\n\n".join(m["content"] for m in merged).split("\n\n") == [str(n) for n in range(len(roles))]
        or not roles
    )


def test_content_in_parts_is_not_merged() -> None:
    """Content that is a list of parts is left as it is."""
    parts = {"role": "user", "content": [{"type": "text", "text": "x"}]}
    assert merge_user_messages([TWO[0], parts]) == [TWO[0], parts]
