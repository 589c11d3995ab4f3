"""`model.transport: tokens`: token ids, to which each turn of a trajectory only adds, to /v1/completions.

The ids stay here, so that any server of the model can be asked. The first prompt, and that of a trajectory
whose ids are not known, is rendered whole by the server; later ones take from it only what stands between a
reply and the next.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import aiohttp

from runner.config import ModelConfig
from runner.encoding import encode
from runner.errors import ConfigError, ContextOverflow, ModelUnavailable
from runner.models.base import Completion, ModelRequest
from runner.models.endpoint import Answer, Endpoint, OnEvent
from runner.models.request_body import RequestBody
from runner.models.template_check import STUB, Bridge
from runner.models.token_history import TokenIds, Told, told, why_rendered
from runner.models.token_probe import N_TRIES, find_bridge
from runner.models.token_wire import read_ids, read_token_reply, render_body
from runner.models.window import MIN_REPLY_TOKENS, Window, shorter_reply
from runner.models.wire import BadAnswer

STUB_MESSAGES = encode(list(STUB))


class TokenTransport:
    """See Transport. `on_event` is told of each turn whose ids were not known."""

    def __init__(self, config: ModelConfig, body: RequestBody, window: Window, on_event: OnEvent) -> None:
        self.config = config
        self.body = body
        self.window = window
        self.on_event = on_event
        self.bridge = Bridge(())
        self._first_url: str | None = None
        """Of the server that the bridge is from."""

        self.known: dict[str, Told] = {}
        """What each attempt was told and has said."""

        self._fit: set[Endpoint] = set()
        """Checked, and not away since."""

        self._checking: defaultdict[Endpoint, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refused: dict[Endpoint, tuple[int, str]] = {}
        """How many checks refused it, and why the last did."""

    async def check(self, http: aiohttp.ClientSession, endpoints: Sequence[Endpoint]) -> None:
        """See Transport. All servers must render a conversation the same way."""
        if not endpoints:
            raise ModelUnavailable("no engine is ready any more: it was lost while the client started")
        for endpoint in endpoints:
            await self._check(http, endpoint)

    async def admit(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> None:
        """Check a server that came later, or was away. Raises BadAnswer: it is unlike the others, or gone."""
        if endpoint in self._fit:
            return
        n_before, _ = self._refused.get(endpoint, (0, ""))
        async with self._checking[endpoint]:
            if endpoint in self._fit:
                return
            n_refused, why = self._refused.get(endpoint, (0, ""))
            if n_refused > n_before:  # all who waited go elsewhere at once
                raise BadAnswer(why)
            try:
                await self._check(http, endpoint, n_tries=1)
            except (ConfigError, ModelUnavailable) as error:
                self._refused[endpoint] = (n_refused + 1, str(error))
                raise BadAnswer(str(error)) from error

    def doubt(self, endpoint: Endpoint) -> None:
        """Let a server be checked before its next call: another may listen there by then."""
        self._fit.discard(endpoint)

    async def _check(self, http: aiohttp.ClientSession, endpoint: Endpoint, n_tries: int = N_TRIES) -> None:
        bridge = await find_bridge(http, endpoint, self.body.model, self.config, n_tries=n_tries)
        if self._first_url is None:
            self.bridge, self._first_url = bridge, endpoint.url
        if bridge != self.bridge:
            raise ConfigError(
                f"model.transport is tokens, and {self._first_url} and {endpoint.url} write a conversation "
                "in different tokens: give them the same model and chat template, or set model.transport=chat"
            )
        self._fit.add(endpoint)

    def call(self, request: ModelRequest) -> TokenCall:
        """See Transport. Raises ConfigError where a conversation is more than text."""
        for message in request.conversation.messages:
            if not isinstance(message.get("content"), str):
                raise ConfigError(
                    f"sample {request.sample.id}: model.transport is tokens, which sends text alone, and a "
                    f"message of the {message['role']} is more than that; set model.transport=chat"
                )
        return TokenCall(self, request)

    def forget(self, attempt: str) -> None:
        """See Transport."""
        self.known.pop(attempt, None)


class TokenCall:
    """See Call."""

    def __init__(self, transport: TokenTransport, request: ModelRequest) -> None:
        self._transport = transport
        self._request = request
        self._prompt: TokenIds | None = None
        self._n_wanted = transport.body.max_reply_tokens

    async def ask(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> Answer:
        """See Call."""
        try:
            await self._transport.admit(http, endpoint)
            return await self._ask(http, endpoint)
        except (aiohttp.ClientError, TimeoutError, OSError):
            self._transport.doubt(endpoint)
            raise

    async def _ask(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> Answer:
        if self._prompt is None:
            rendered = await self._render(http, endpoint)
            if isinstance(rendered, Answer):
                return rendered
            self._prompt = rendered
        head = b'"prompt":[%b]' % self._prompt.encoded
        n_tokens = self._n_reply_tokens(self._prompt)
        if n_tokens == self._transport.body.max_reply_tokens:
            n_tokens = None  # as the config has it, which is written already
        body = self._transport.body.write(head, self._request, n_tokens)
        return await endpoint.post(http, body, "completions")

    def read(self, body: bytes) -> Completion:
        """See Call."""
        assert self._prompt is not None
        reply = read_token_reply(body, self._transport.config.request)
        messages = self._request.conversation.messages
        self._transport.known[self._request.attempt] = told(messages, self._prompt, reply)
        return reply.completion

    def shorten(self) -> bool:
        """See Call."""
        shorter = None if self._n_wanted is None else shorter_reply(self._n_wanted)
        if shorter is None:
            return False
        self._n_wanted = shorter
        return True

    def _n_reply_tokens(self, prompt: TokenIds) -> int | None:
        """Return how long a reply to ask for; None: as the config has it."""
        window, wanted = self._transport.window.n_tokens, self._n_wanted
        if window is None:
            return wanted
        room = window - prompt.n_tokens
        if room < min(MIN_REPLY_TOKENS, wanted or 1):
            raise ContextOverflow(
                f"the conversation has {prompt.n_tokens} tokens, and the model's window {window}: "
                "no reply fits"
            )
        return None if wanted is None else min(wanted, room)

    async def _render(self, http: aiohttp.ClientSession, endpoint: Endpoint) -> TokenIds | Answer:
        """Return the prompt, or an answer that holds none. Raises as `ask` does."""
        transport, request = self._transport, self._request
        known = transport.known.get(request.attempt)
        reason = why_rendered(known, request.conversation)
        if known is not None and reason is None:
            added = request.conversation.encoded(len(known.messages) + 1)
            answer = await self._tokenize(http, endpoint, STUB_MESSAGES[:-1] + b"," + added[1:])
            if answer.status != 200:
                return answer
            tail = transport.bridge.tail(read_ids(answer.body))
            if tail is not None:
                return known.ids.plus(tail)
            reason = "the chat template writes what follows a reply in another way than at the start"
        answer = await self._tokenize(http, endpoint, request.conversation.encoded())
        if answer.status != 200:
            return answer
        ids = read_ids(answer.body)
        if request.n_turns_done:
            details = {"attempt": request.attempt, "n_turns": request.n_turns_done, "reason": reason}
            transport.on_event("history_rendered", details)
        return TokenIds().plus(ids)

    async def _tokenize(self, http: aiohttp.ClientSession, endpoint: Endpoint, messages: bytes) -> Answer:
        transport = self._transport
        body = render_body(transport.body.model, transport.config.request, messages)
        return await endpoint.post_beside(http, body, "tokenize")
