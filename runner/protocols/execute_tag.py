"""CodeAct's protocol: code between `<execute>` and `</execute>`.

Behaviour and strings as in github.com/xingyaoww/code-act at d607f56 (`scripts/chat/demo.py`,
`code_execution/jupyter.py`) and its chat-ui fork at fb72c59: the first block is executed; a closing
tag that the stop string cut off is put back; observations over 4000 characters show the first and
last 2000; pictures are mentioned, not shown. Unlike upstream, what a cell printed before its time
limit is kept.
"""

from __future__ import annotations

import re
from typing import Any

from runner.protocols.base import Action, Protocol, Reply, TextLimits, WrittenAction, assistant, status_note
from sandbox_pool import Observation, Status
from sandbox_pool.observation import Display, Error, Result, Stream

OPEN_TAG = "<execute>"
CLOSE_TAG = "</execute>"
OBSERVATION_START = "Execution Output:\n"
NO_OUTPUT = "[Code executed successfully with no output]"
PICTURE = "\n[An image is already displayed to the user.]\n"

SYSTEM_PROMPT = """\
You help a user by writing Python code, which is run for you in an interactive Jupyter kernel.

To run code, put it between tags: <execute>
print("Hello World!")
</execute>
The next message shows its output. Variables, imports and files are kept. Write one block at a time and
keep it short; import what you use. Input files are below ./data; save every file that the task asks for
below ./output. There is no internet and no input().

Run code rather than showing it. Once you know the answer, and have seen it to be right, stop using
<execute> and reply with the answer alone.
"""

_BLOCK = re.compile(r"<execute>(.*?)</execute>", re.DOTALL)


class ExecuteTag(Protocol):
    """First `<execute>` block; a reply without one is the answer."""

    name = "execute_tag"
    stop = (CLOSE_TAG,)
    system_prompt = SYSTEM_PROMPT
    default_limits = TextLimits(2000, 2000, marker="\n... [Output truncated due to length]...\n")

    def parse(self, completion: str, finish_reason: str | None, tool_calls: list[Any] | None = None) -> Reply:
        """Return the code of the first block, stripped. A reply cut by length keeps its tag open."""
        message = mend(completion) if finish_reason == "stop" else completion
        block = _BLOCK.search(message)
        if block and block[1].strip():
            return Reply(assistant(message), (Action(block[1].strip()),))
        return Reply(assistant(message))

    def write_action(self, code: str) -> WrittenAction:
        """Return the code between tags."""
        return WrittenAction(f"{OPEN_TAG}\n{code}\n{CLOSE_TAG}")

    def render_observation(self, observation: Observation) -> str:
        """Return upstream's message, with the outputs joined as they came."""
        text = "".join(_text(output) for output in observation.outputs)
        note = status_note(observation)
        if observation.status is Status.TIMEOUT and observation.kernel_alive:
            note = f"[Execution timed out ({observation.duration_s:.0f} seconds).]"
        if note:
            text += ("\n" if text and not text.endswith("\n") else "") + note
        return OBSERVATION_START + self.shorten(text or NO_OUTPUT)


def mend(completion: str) -> str:
    """Close a block that the stop string `</execute>` cut off, wholly or but for its last character."""
    if completion.rfind(OPEN_TAG) <= completion.rfind(CLOSE_TAG):
        return completion
    if completion.endswith(CLOSE_TAG[:-1]):
        return completion + CLOSE_TAG[-1]
    return completion + CLOSE_TAG


def _text(output: object) -> str:
    if isinstance(output, Stream):
        return output.text
    if isinstance(output, Error):
        return output.traceback
    if isinstance(output, Result | Display):
        plain = output.data.get("text/plain", "")
        picture = PICTURE if "image/png" in output.data else ""
        return (plain if isinstance(plain, str) else "") + picture
    return ""
