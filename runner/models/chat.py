"""`model.transport: chat`: the whole conversation as text, at each turn, to /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp

from runner.models.base import Completion, ModelRequest
from runner.models.endpoint import Answer, Endpoint
from runner.models.request_body import RequestBody
from runner.models.window import Window, shorter_reply
from runner.models.wire import read_completion


class ChatTransport:
    """See Transport. Every server of this kind can be asked so."""

    def __init__(self, body: RequestBody, window: Window) -> None:
        self._body = body
        self._window = window

    async def check(self, http: aiohttp.ClientSession, endpoints: Sequence[Endpoint]) -> None:
        """See Transport."""

    def call(self, request: ModelRequest) -> ChatCall:
        """See Transport."""
        return ChatCall(self._body, self._window, request)

    def forget(self, attempt: str) -> None:
        """See Transport."""
        self._window.forget(attempt)


class ChatCall:
    """See Call."""

    def __init__(self, body: RequestBody, window: Window, request: ModelRequest) -> None:
        self._body = body
        self._window = window
        self._request = request
        asked = body.write(messages_of(request), request)
        self._n_bytes = len(asked)
        self._n_tokens = wanted = body.max_reply_tokens
        if wanted is not None:
            self._n_tokens = window.longest_reply(request.attempt, self._n_bytes, wanted)
        self._asked = asked if self._n_tokens == wanted else self._shortened()

    async def ask(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> Answer:
        """See Call."""
        return await endpoint.post(http, self._asked)

    def read(self, body: bytes) -> Completion:
        """See Call."""
        completion = read_completion(body, self._request.conversation.messages)
        if self._n_tokens is not None:
            self._window.on_completion(self._request.attempt, self._n_bytes, completion)
        return completion

    def shorten(self) -> bool:
        """See Call."""
        shorter = None if self._n_tokens is None else shorter_reply(self._n_tokens)
        if shorter is None:
            return False
        self._n_tokens = shorter
        self._asked = self._shortened()
        return True

    def _shortened(self) -> bytes:
        return self._body.write(messages_of(self._request), self._request, self._n_tokens)


def messages_of(request: ModelRequest) -> bytes:
    """Return the conversation as the first key of a request's JSON."""
    return b'"messages":' + request.conversation.encoded()
