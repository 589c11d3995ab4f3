"""Which chat templates let a conversation go on in token ids, and what stands between a reply and the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.models.template_check import (
    STUB,
    Bridge,
    Rendered,
    judge_template,
    probes,
    stub_prefix,
    stub_probes,
)

Messages = Sequence[dict[str, Any]]
Template = Callable[[Messages], str]


def by_letters(text: str) -> Rendered:
    """Return a text as a tokenizer does that knows letters alone."""
    return Rendered(tuple(map(ord, text)), text)


def by_pairs(text: str) -> Rendered:
    """Return a text as one that takes two at a time, whatever they are."""
    return Rendered(tuple(hash(text[n : n + 2]) for n in range(0, len(text), 2)), text)


def judged(
    template: Template, tokenize: Callable[[str], Rendered] = by_letters, *, with_system: bool = True
) -> str | None:
    """Return what is wrong with a template."""
    stub = [tokenize(template(messages)) for messages in stub_probes()]
    prefix = stub_prefix(stub)
    prefix_text = "".join(map(chr, prefix)) if tokenize is by_letters else stub[1].text[: 2 * len(prefix)]
    rendered = [tokenize(template(messages)) for messages in probes(with_system=with_system)]
    return judge_template(rendered, stub, prefix_text)


def chatml(messages: Messages) -> str:
    """As Qwen 2.5: nothing is changed."""
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def with_default_system(messages: Messages) -> str:
    """As Qwen 2.5 without a system message: one of its own."""
    own = [] if messages[0]["role"] == "system" else [{"role": "system", "content": "Be nice."}]
    return chatml([*own, *messages])


def with_bos(messages: Messages) -> str:
    """Begins with what no other place has."""
    return "<bos>" + chatml(messages)


def strips(messages: Messages) -> str:
    """As Llama 3: no white space at the ends of a message."""
    return chatml([{**m, "content": m["content"].strip()} for m in messages])


def forgets(messages: Messages) -> str:
    """As Qwen 3: what was thought before the last user's message is left out."""
    last = max(number for number, m in enumerate(messages) if m["role"] == "user")
    shown = [
        {**m, "content": m["content"].rpartition("</think>\n\n")[2]} if number < last else m
        for number, m in enumerate(messages)
    ]
    return chatml(shown)


def forgets_late(messages: Messages) -> str:
    """The last thought stays, those before it go."""
    replies = [number for number, m in enumerate(messages) if m["role"] == "assistant"]
    shown = [
        {**m, "content": m["content"].rpartition("</think>\n\n")[2]} if number in replies[:-1] else m
        for number, m in enumerate(messages)
    ]
    return chatml(shown)


def prefills(messages: Messages) -> str:
    """As Qwen 3 told not to think: an empty thought before each reply, but not in the history."""
    return chatml(messages) + "<think>\n\n</think>\n\n"


def moves(messages: Messages) -> str:
    """As Mistral: the system prompt stands in the last message of the user."""
    system = "".join(m["content"] for m in messages if m["role"] == "system")
    others = [dict(m) for m in messages if m["role"] != "system"]
    others[-1]["content"] = system + others[-1]["content"]
    return chatml(others)


def pads(messages: Messages) -> str:
    """A blank before each reply of the history, none behind the beginning of the next."""
    turns = [f"[{m['content']}]" if m["role"] != "assistant" else f" {m['content']}</s>" for m in messages]
    return "".join(turns)


def counts(messages: Messages) -> str:
    """Each message has its number."""
    turns = [f"<{n}:{m['role']}>{m['content']}<end>" for n, m in enumerate(messages)]
    return "".join(turns) + "<assistant>"


def numbers_turns(messages: Messages) -> str:
    """What stands between depends on how many there were."""
    parts, n_replies = [], 0
    for m in messages:
        if m["role"] == "assistant":
            n_replies += 1
            parts.append(f"{m['content']}<end of {n_replies}>")
        else:
            parts.append(f"<{m['role']}>{m['content']}<assistant>")
    return "".join(parts)


@pytest.mark.parametrize("template", [chatml, with_default_system, with_bos])
@pytest.mark.parametrize("with_system", [True, False])
def test_templates_that_only_add(template: Template, with_system: bool) -> None:
    assert judged(template, with_system=with_system) is None


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (strips, "does not keep white space at the ends of a reply as it was"),
        (forgets, "does not keep what the model thought as it was"),
        (forgets_late, "writes what stood before a later reply in another way"),
        (prefills, "writes what stood before a reply in another way"),
        (moves, "writes what stood before a reply in another way"),
        (pads, "does not keep a reply as it was"),
        (numbers_turns, "writes something else behind white space at the ends of a reply"),
        (counts, "does not keep a reply as it was|writes what stood before a reply in another way"),
    ],
)
def test_templates_that_change_what_was(template: Template, problem: str) -> None:
    """Each is refused by the first thing that it does."""
    said = judged(template)
    assert said is not None
    assert any(part in said for part in problem.split("|"))


def test_a_system_prompt_that_moves_does_not_matter_without_one() -> None:
    assert judged(moves, with_system=False) is None


def test_a_reply_whose_end_is_joined_to_what_follows() -> None:
    """Then no token ends where the reply ends: a tokenizer of pairs does so behind every other beginning."""
    first, second = (judged(lambda messages, n=n: "b" * n + chatml(messages), by_pairs) for n in (0, 1))
    assert (first is None) != (second is None)
    assert "joins the end of a reply" in str(first or second)


text = st.text(max_size=20)
special = st.sampled_from(["<s>", "</s>", "\n", "", "[INST]", " "])


@given(marks=st.tuples(text, text, special, special, text), replies=st.lists(text, max_size=4), seen=text)
def test_a_conversation_by_the_bridge_is_the_one_by_the_template(
    marks: tuple[str, str, str, str, str], replies: list[str], seen: str
) -> None:
    """For any template that writes messages one after the other: same ids, whatever was said."""
    begin, before_user, after_user, after_reply, before_reply = marks

    def template(messages: Messages) -> str:
        turns = [
            f"{m['content']}{after_reply}" if m["role"] == "assistant"
            else f"{before_user}{m['role']}{m['content']}{after_user}{before_reply}"
            for m in messages
        ]  # fmt: skip
        return begin + "".join(turns)

    stub = [by_letters(template(messages)) for messages in stub_probes()]
    bridge = Bridge(stub_prefix(stub))
    messages: list[dict[str, Any]] = [{"role": "user", "content": "question"}]
    ids = by_letters(template(messages)).ids
    for reply in replies:
        added = [{"role": "user", "content": seen}]
        tail = bridge.tail(by_letters(template([*STUB, *added])).ids)
        assert tail is not None
        ids += (*by_letters(reply).ids, *tail)
        messages += [{"role": "assistant", "content": reply}, *added]
    assert ids == by_letters(template(messages)).ids


def test_no_tail_where_the_beginning_is_another() -> None:
    """A template with the date in it, at midnight."""
    bridge = Bridge((1, 2, 3))
    assert bridge.tail((1, 2, 3, 4, 5)) == (4, 5)
    assert bridge.tail((1, 2, 9, 4, 5)) is None
    assert bridge.tail((1, 2, 3)) is None
