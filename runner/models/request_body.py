"""ModelRequest -> the JSON of a request. What a conversation holds is not encoded again for each call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.config import ModelConfig
from runner.encoding import encode
from runner.models.base import ModelRequest
from runner.models.wire import REPLY_PARAMS


class RequestBody:
    """Writes the requests of a client. `model` and `is_vllm` are set when its servers are known.

    `parameters` stand for `model.request`, where a transport has other names for what that says.
    """

    def __init__(self, config: ModelConfig, parameters: Mapping[str, Any] | None = None) -> None:
        self.model = config.name or ""
        self.is_vllm = False
        self.max_reply_tokens = _max_reply_tokens(config.request)
        """What the config allows a reply; None where it says nothing."""

        self._parameters = config.request if parameters is None else parameters
        self._sends_seed = config.send_seed and "seed" not in config.request
        self._tails: dict[tuple[tuple[str, ...], int], bytes] = {}

    def write(self, head: bytes, request: ModelRequest, n_tokens: int | None = None) -> bytes:
        """Return the request as the config wants it, or with `n_tokens` for the reply.

        `head` is its first key with its value: the conversation, in one form or another.
        """
        if n_tokens is None:
            key = (request.stop, id(request.tools))
            tail = self._tails.get(key)
            if tail is None:
                tail = self._tails[key] = self._tail(request, self._parameters)
        else:
            fewer = {name: n_tokens for name in REPLY_PARAMS if name in self._parameters}
            tail = self._tail(request, {**self._parameters, **fewer})
        seed = b""
        if request.seed is not None and self._sends_seed:
            seed = b',"seed":%d' % request.seed
        return b"{%b%b%b" % (head, seed, tail)

    def _tail(self, request: ModelRequest, parameters: Mapping[str, Any]) -> bytes:
        """Return what follows the conversation and the seed, mostly the same for all calls of a protocol."""
        options: dict[str, Any] = {"model": self.model}
        if request.stop:
            options["stop"] = list(request.stop)
            if self.is_vllm:
                options["include_stop_str_in_output"] = True
        if request.tools:
            options |= {"tools": list(request.tools), "tool_choice": "auto"}
        options |= parameters
        options.pop("messages", None)
        return b"," + encode(options)[1:]


def _max_reply_tokens(parameters: Mapping[str, Any]) -> int | None:
    said = [parameters[name] for name in REPLY_PARAMS if isinstance(parameters.get(name), int)]
    return min(said) if said and min(said) > 0 else None
