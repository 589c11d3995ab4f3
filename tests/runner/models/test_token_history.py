"""A trajectory's ids are its prompts and replies, one behind the other; anything else is no going on."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from runner.models import Completion
from runner.models.conversation import Conversation
from runner.models.token_history import TokenIds, Told, told, why_rendered
from runner.models.token_wire import TokenReply

ids = st.lists(st.integers(2, 10**6), min_size=1, max_size=6)
turns = st.lists(st.tuples(ids, st.booleans(), ids, st.text(max_size=5)), max_size=5)
END = 1


def known(
    conversation: Conversation, prompt: TokenIds, reply_ids: list[int], *, ended: bool, text: str
) -> Told:
    """Return what a reply makes of a conversation that it is not in yet."""
    made = [*reply_ids, END] if ended else reply_ids
    return told(conversation.messages, prompt, TokenReply(Completion(text), [], made, ended))


@given(opening=ids, turns=turns)
def test_ids_are_prompts_and_replies_in_order(
    opening: list[int], turns: list[tuple[list[int], bool, list[int], str]]
) -> None:
    """A reply's own end is the template's to write; so its next prompt begins with all that it was, end included."""
    conversation = Conversation([{"role": "user", "content": "q"}])
    prompt, expected = TokenIds().plus(opening), list(opening)
    for reply, ended, tail, text in turns:
        history = known(conversation, prompt, reply, ended=ended, text=text)
        conversation.append({"role": "assistant", "content": text})
        conversation.append({"role": "user", "content": "seen"})
        assert why_rendered(history, conversation) is None
        whole = [*expected, *reply, *([END] if ended else [])]
        prompt = history.ids.plus([END, *tail])
        expected += [*reply, END, *tail]
        assert expected[: len(whole)] == whole
        assert orjson.loads(b"[%b]" % prompt.encoded) == expected
        assert prompt.n_tokens == len(expected)


message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.sampled_from(["a", "b", ""])},
    optional={"reasoning_content": st.just("hm")},
)
conversations = st.lists(message, min_size=1, max_size=5)


@given(before=conversations, after=conversations, reply=st.sampled_from(["a", "b", ""]))
def test_nothing_but_going_on_is_taken_for_it(
    before: list[dict[str, Any]], after: list[dict[str, Any]], reply: str
) -> None:
    """The same messages, the reply as the model made it, and behind it none of the assistant."""
    history = known(Conversation(before), TokenIds(), [5], ended=True, text=reply)
    n = len(before)
    goes_on = (
        after[:n] == before
        and after[n : n + 1] == [{"role": "assistant", "content": reply}]
        and len(after) > n + 1
        and all(later["role"] != "assistant" for later in after[n + 1 :])
    )
    assert (why_rendered(history, Conversation(after)) is None) is goes_on
    whole = [*before, {"role": "assistant", "content": reply}, {"role": "user", "content": "x"}]
    assert why_rendered(history, Conversation(whole)) is None


def test_what_was_never_told_is_not_known() -> None:
    assert "not known here" in str(why_rendered(None, Conversation([{"role": "user", "content": "q"}])))
