"""How a model writes an action and is told the observation."""

from runner.protocols.base import Action, Malformed, Protocol, Reply, WrittenAction
from runner.protocols.execute_tag import ExecuteTag
from runner.protocols.fenced import Fenced
from runner.protocols.function_call import FunctionCall
from runner.protocols.tool_call import ToolCall

PROTOCOLS: dict[str, type[Protocol]] = {
    "fenced": Fenced,
    "function_call": FunctionCall,
    "execute_tag": ExecuteTag,
    "tool_call": ToolCall,
}
"""By the name that the config uses."""

__all__ = [
    "PROTOCOLS",
    "Action",
    "ExecuteTag",
    "Fenced",
    "FunctionCall",
    "Malformed",
    "Protocol",
    "Reply",
    "ToolCall",
    "WrittenAction",
]
