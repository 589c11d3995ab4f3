"""Asks a server, before any work is begun, whether its prompts can be token ids, and how they go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import aiohttp

from runner.config import ModelConfig
from runner.encoding import encode
from runner.errors import ConfigError, ModelUnavailable
from runner.models.endpoint import Answer, Endpoint
from runner.models.retrying import RETRIED_STATUSES, backoff_s
from runner.models.template_check import (
    Bridge,
    Message,
    Rendered,
    judge_template,
    probes,
    stub_prefix,
    stub_probes,
)
from runner.models.token_wire import read_ids, read_text, read_token_reply, render_body
from runner.models.wire import BadAnswer, refusal_text

N_TRIES = 3


async def find_bridge(
    http: aiohttp.ClientSession,
    endpoint: Endpoint,
    model: str,
    config: ModelConfig,
    *,
    n_tries: int = N_TRIES,
) -> Bridge:
    """Return what leads from a reply to the next in the prompts of a server.

    Each request is sent at most `n_tries` times.

    Raises:
        ConfigError: it or its chat template does not allow `model.transport: tokens`; says why.
        ModelUnavailable: it does not answer.
    """
    prober = _Prober(http, endpoint, model, config, n_tries)
    try:
        return await prober.find()
    except BadAnswer as error:
        raise prober.refuses(str(error)) from error


class _Prober:
    """One server's."""

    def __init__(
        self, http: aiohttp.ClientSession, endpoint: Endpoint, model: str, config: ModelConfig, n_tries: int
    ) -> None:
        self._http = http
        self._endpoint = endpoint
        self._model = model
        self._config = config
        self._n_tries = n_tries

    async def find(self) -> Bridge:
        """Return the bridge. Raises as `find_bridge` does, and BadAnswer."""
        stub = [await self._rendered(messages) for messages in stub_probes()]
        prefix = stub_prefix(stub)
        prefix_text = await self._text(prefix)
        rendered = await self._conversations()
        if (problem := judge_template(rendered, stub, prefix_text)) is not None:
            raise self.refuses(
                problem, "serve the model with a template that leaves earlier turns alone "
                "(engines.chat_template, or vLLM's --chat-template), or "
            )  # fmt: skip
        await self._check_completions(rendered[0].ids)
        return Bridge(prefix)

    async def _conversations(self) -> list[Rendered]:
        """Return the probes, with a system prompt if the template has a place for one."""
        with_system = probes(with_system=True)
        if (await self._ask("tokenize", self._body(with_system[0]))).status != 200:
            with_system = probes(with_system=False)
        return [await self._rendered(messages) for messages in with_system]

    async def _rendered(self, messages: Sequence[Message]) -> Rendered:
        answer = await self._ask("tokenize", self._body(messages))
        if answer.status != 200:
            raise self.refuses(f"its /tokenize gives no tokens ({refusal_text(answer.status, answer.body)})")
        ids = read_ids(answer.body)
        return Rendered(ids, await self._text(ids))

    async def _text(self, ids: Sequence[int]) -> str:
        answer = await self._ask("detokenize", encode({"model": self._model, "tokens": list(ids)}))
        if answer.status != 200:
            raise self.refuses(f"its /detokenize gives no text ({refusal_text(answer.status, answer.body)})")
        return read_text(answer.body)

    async def _check_completions(self, prompt: Sequence[int]) -> None:
        """See whether ids are taken as they are, and given back."""
        body = {"model": self._model, "prompt": list(prompt), "max_tokens": 1, "return_token_ids": True}
        answer = await self._ask("completions", encode(body))
        if answer.status != 200:
            raise self.refuses(
                f"its completions take no token ids ({refusal_text(answer.status, answer.body)})"
            )
        reply = read_token_reply(answer.body, {})
        if reply.prompt_ids != list(prompt) or len(reply.ids) != 1:
            raise self.refuses("its completions do not go on from the token ids that they are given")

    def _body(self, messages: Sequence[Message]) -> bytes:
        return render_body(self._model, self._config.request, encode(list(messages)))

    async def _ask(self, what: str, body: bytes) -> Answer:
        failure = ""
        for n_failed in range(self._n_tries):
            if n_failed:
                await asyncio.sleep(backoff_s(n_failed - 1, self._config.max_backoff_s))
            try:
                answer = await self._post(what, body)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = str(error) or type(error).__name__
            else:
                if answer.status not in RETRIED_STATUSES:
                    return answer
                failure = refusal_text(answer.status, answer.body)
        raise ModelUnavailable(f"{self._endpoint.url} does not answer at /{what}: {failure}")

    async def _post(self, what: str, body: bytes) -> Answer:
        if what == "completions":
            return await self._endpoint.post(self._http, body, what)
        return await self._endpoint.post_beside(self._http, body, what)

    def refuses(self, problem: str, remedy: str = "") -> ConfigError:
        """Return the error that says why tokens cannot be the transport."""
        url = self._endpoint.url
        return ConfigError(
            f"model.transport is tokens, and {url} does not allow it: {problem}; "
            f"{remedy}set model.transport=chat"
        )
