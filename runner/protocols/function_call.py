"""PyBench's other protocol, `mode: functioncall`: a call written into the text of a reply, as JSON.

Behaviour as in github.com/Mercury7353/PyBench at fa90fae, `utils/output_parser.py`: behind the first token,
what stands between the first `{` and the last `}` is read as JSON once its line breaks are written as
escapes, so that code may hold raw ones; what cannot be read so ends the task. Native calls are `tool_call`'s.
"""

from __future__ import annotations

import json
from typing import Any

from runner.protocols.base import Action, Protocol, Reply, TextLimits, WrittenAction, assistant
from runner.protocols.fenced import render_as_upstream
from sandbox_pool import Observation

TOOL_CALL = "<|tool_call|>"

SYSTEM_PROMPT = f"""\
You solve tasks by writing Python code, which is run for you in a Jupyter kernel, step by step.

Each of your replies is one step. Begin it with a sentence or two: what the latest output tells you, and what
this step is to do. Then call for its code to be run, exactly once, in one line of JSON:

{TOOL_CALL}{{"code": "your code"}}

The next message shows what the code printed and the value of its last expression. Variables, imports
and files are kept from step to step. The packages numpy, pandas, matplotlib, scipy, scikit-learn,
sympy, openpyxl and Pillow are installed, and others may be; there is no internet and no input().

Rules:
- Input files are below ./data. Save every file that the task asks for below ./output, under the name
  that it asks for. Save figures with savefig; do not show them.
- Look at the data before you rely on its form, and check a result before you report it.
- After an error, read it, and write the whole step again, corrected.
- A reply without a call ends the task. Never end it on results that you have not seen: first run the
  code that gives them. When everything is done and seen to be right, reply with your final answer, the
  names of the files that you saved included, and no call.
"""


class FunctionCall(Protocol):
    """JSON behind a token in the reply's text; an absent or unreadable one ends the task."""

    name = "function_call"
    default_limits = TextLimits(head_chars=8000, tail_chars=8000)

    def __init__(self, limits: TextLimits | None, tool_call_token: str = TOOL_CALL) -> None:
        super().__init__(limits)
        self._token = tool_call_token
        self.system_prompt = SYSTEM_PROMPT.replace(TOOL_CALL, tool_call_token)

    def parse(self, completion: str, finish_reason: str | None, tool_calls: list[Any] | None = None) -> Reply:
        """Return the `code` of the JSON behind the first token."""
        _, called, rest = completion.partition(self._token)
        code = _code(rest) if called else None
        return Reply(assistant(completion), (Action(code),) if code else ())

    def write_action(self, code: str) -> WrittenAction:
        """Return a call with the code."""
        return WrittenAction(self._token + json.dumps({"code": code}, ensure_ascii=False))

    def render_observation(self, observation: Observation) -> str:
        """Return upstream's message."""
        return render_as_upstream(observation, self.shorten)


def _code(text: str) -> str | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        call = json.loads(text[start : end + 1].replace("\n", "\\n"))
    except (ValueError, RecursionError):
        return None
    code = call.get("code") if isinstance(call, dict) else None
    return code.strip() if isinstance(code, str) and code.strip() else None
