"""The `protocol:` section: how the model writes an action and is told the observation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runner.config.base import ConfigModel


class Truncation(ConfigModel):
    """How much of an observation the model is shown."""

    head_chars: int = Field(ge=0)
    tail_chars: int = Field(ge=0)


class ProtocolConfig(ConfigModel):
    """How the model writes an action and is told the observation."""

    kind: Literal["fenced", "function_call", "execute_tag", "tool_call"] | None = None
    """None: the one that the benchmark is written for."""

    system_prompt: str | None = None
    """None: the protocol's own. An empty string sends no system message."""

    code_start_token: str | None = Field(default=None, min_length=1)
    """What code stands behind in a reply, of `fenced`; None: ```` ```python ````."""

    code_end_token: str | None = Field(default=None, min_length=1)
    """What code ends before, of `fenced`; None: ```` ``` ````."""

    tool_call_token: str | None = Field(default=None, min_length=1)
    """What a call stands behind in a reply, of `function_call`; None: `<|tool_call|>`."""

    truncation: Literal["default", "off"] | Truncation = "default"
    """Of observations; the default is the protocol's own, and none for `profile: upstream`."""

    merge_user_messages: bool | None = None
    """Join consecutive user messages with a blank line: strict chat templates reject two in a row. None: yes,
    but for `profile: upstream`."""
