"""Native function calling: one tool, `python`, as OpenAI's chat completions describe tools.

A reply may hold several calls; they are executed in order, and each is answered by a `tool` message.
A call that cannot be read is answered too: servers refuse a conversation in which one is not.
"""

from __future__ import annotations

import json
from typing import Any

from runner.encoding import encode
from runner.protocols.base import (
    Action,
    Malformed,
    Protocol,
    Reply,
    TextLimits,
    WrittenAction,
    status_note,
)
from sandbox_pool import Observation
from sandbox_pool.observation import Display, Error, Result, Stream

TOOL_NAME = "python"
NO_OUTPUT = "[no output]"
PICTURE = "[a picture was displayed]"

SYSTEM_PROMPT = """\
You solve tasks by writing Python code, which the tool `python` runs for you in a Jupyter kernel.

The tool returns what the code printed and the value of its last expression. Variables, imports and files
are kept from call to call. Input files are below ./data; save every file that the task asks for below
./output, under the name that it asks for. There is no internet and no input().

Look at the data before you rely on its form, and check a result before you report it. When everything
is done and seen to be right, reply with your final answer and no tool call.
"""

PYTHON_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Run Python code as a cell of a stateful Jupyter notebook and return its output.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The cell's code."}},
            "required": ["code"],
        },
    },
}


class ToolCall(Protocol):
    """Calls of the tool `python`; a reply without a call is the answer."""

    name = "tool_call"
    tools = (PYTHON_TOOL,)
    system_prompt = SYSTEM_PROMPT
    default_limits = TextLimits(head_chars=8000, tail_chars=8000)

    def parse(self, completion: str, finish_reason: str | None, tool_calls: list[Any] | None = None) -> Reply:
        """Return the code of each call; ids that a server left out are made up."""
        message: dict[str, Any] = {"role": "assistant", "content": completion}
        calls = [_with_id(call, number) for number, call in enumerate(tool_calls or (), start=1)]
        if not calls:
            return Reply(message)
        message["tool_calls"] = calls
        return Reply(message, tuple(_action(call, finish_reason) for call in calls))

    def write_action(self, code: str) -> WrittenAction:
        """Return a call of the tool."""
        arguments = json.dumps({"code": code})
        return WrittenAction(
            text="",
            tool_calls=[
                {"id": "call_1", "type": "function", "function": {"name": TOOL_NAME, "arguments": arguments}}
            ],
        )

    def render_observation(self, observation: Observation) -> str:
        """Return the outputs as they came, and a note where the cell did not end by itself."""
        text = self.shorten("".join(_text(output) for output in observation.outputs))
        if note := status_note(observation):
            text += ("\n" if text and not text.endswith("\n") else "") + note
        return text or NO_OUTPUT

    def observation_message(self, action: Action, observation: Observation) -> dict[str, Any]:
        """Return the tool's message."""
        return _tool_message(action.call_id, self.render_observation(observation))

    def problem_message(self, malformed: Malformed) -> dict[str, Any]:
        """Return the tool's message."""
        return _tool_message(malformed.call_id, malformed.problem)


def _tool_message(call_id: str | None, content: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def _with_id(call: Any, number: int) -> dict[str, Any]:
    """Return a call in the form in which it may be sent back."""
    function = call.get("function") if isinstance(call, dict) else None
    function = function if isinstance(function, dict) else {}
    name, arguments = function.get("name"), function.get("arguments")
    call_id = call.get("id") if isinstance(call, dict) else None
    return {
        "id": call_id if isinstance(call_id, str) and call_id else f"call_{number}",
        "type": "function",
        "function": {
            "name": name if isinstance(name, str) else "",
            "arguments": arguments if isinstance(arguments, str) else _written(arguments or {}),
        },
    }


def _written(arguments: Any) -> str:
    try:
        return json.dumps(arguments)
    except RecursionError:
        return encode(arguments).decode()


def _action(call: dict[str, Any], finish_reason: str | None) -> Action | Malformed:
    name, arguments = call["function"]["name"], call["function"]["arguments"]
    if name != TOOL_NAME:
        return Malformed(f"Error: there is no tool {name!r}; the only tool is {TOOL_NAME!r}.", call["id"])
    try:
        parsed = json.loads(arguments)
    except ValueError as error:
        if finish_reason == "length":
            why = "the reply was cut off at the token limit; write shorter code"
        else:
            why = f'the arguments are not JSON ({error}); send {{"code": "..."}}'
        return Malformed(f"Error: nothing was run: {why}.", call["id"])
    except RecursionError:
        why = 'the arguments are nested too deeply; send {"code": "..."}'
        return Malformed(f"Error: nothing was run: {why}.", call["id"])
    code = parsed.get("code") if isinstance(parsed, dict) else parsed
    if not isinstance(code, str) or not code.strip():
        return Malformed('Error: nothing was run: there is no code; send {"code": "..."}.', call["id"])
    return Action(code, call["id"])


def _text(output: object) -> str:
    if isinstance(output, Stream):
        return output.text
    if isinstance(output, Error):
        return output.traceback
    if isinstance(output, Result | Display):
        plain = output.data.get("text/plain", "")
        picture = f"{PICTURE}\n" if any(isinstance(value, bytes) for value in output.data.values()) else ""
        return (plain + "\n" if isinstance(plain, str) and plain else "") + picture
    return ""
