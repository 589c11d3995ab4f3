"""A model server for tests: OpenAI's chat completions over aiohttp, with a script instead of a model.

Run alone, it answers every conversation with three cells and an answer, after a delay:
`python -m tests.stub_server --port 8000 --latency-s 0.05`.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

Reply = web.StreamResponse
Handler = Callable[[dict[str, Any]], Awaitable[Reply]]


def completion(text: str, finish_reason: str = "stop", **message: Any) -> web.Response:
    """Return a well-formed chat completion."""
    body = {
        "id": "stub",
        "object": "chat.completion",
        "model": "stub",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
    return web.Response(body=orjson.dumps(body), content_type="application/json")


def refusal(status: int, message: str, headers: dict[str, str] | None = None, **error: Any) -> web.Response:
    """Return an error as OpenAI's API gives it."""
    body = {"error": {"message": message, "type": "BadRequestError", **error}}
    return web.json_response(body, status=status, headers=headers)


def three_cells_and_an_answer(messages: Sequence[dict[str, Any]]) -> str:
    """Reply by how many replies the conversation holds already."""
    n_replies = sum(1 for message in messages if message["role"] == "assistant")
    return f"```python\nprint({n_replies})\n```" if n_replies < 3 else "All done. Answer: 3"


@dataclass
class StubServer:
    """A server on a free port of 127.0.0.1. `requests` holds the bodies that it got."""

    handler: Handler | None = None
    latency_s: float = 0.0
    models: tuple[str, ...] = ("stub",)
    owned_by: str = "stub"
    root: str | None = None
    routes: Sequence[web.RouteDef] = ()
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    keep_requests: bool = True

    async def __aenter__(self) -> StubServer:
        """Listen."""
        application = web.Application(client_max_size=1 << 30)
        application.router.add_post("/v1/chat/completions", self._complete)
        application.router.add_get("/v1/models", self._list_models)
        application.router.add_routes(self.routes)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=2048)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and drop all connections."""
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """What goes behind `openai:`."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _complete(self, request: web.Request) -> Reply:
        body = orjson.loads(await request.read())
        if self.keep_requests:
            self.requests.append(body)
            self.headers.append(dict(request.headers))
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if self.handler is not None:
            return await self.handler(body)
        text = three_cells_and_an_answer(body["messages"])
        if body.get("tools") and text.startswith("```"):
            name = body["tools"][0]["function"]["name"]
            function = {"name": name, "arguments": '{"code": "print(1)"}'}
            calls = [{"id": f"call-{len(body['messages'])}", "type": "function", "function": function}]
            return completion("", "tool_calls", tool_calls=calls)
        return completion(text)

    async def _list_models(self, request: web.Request) -> Reply:
        row = {"owned_by": self.owned_by, "root": self.root}
        return web.json_response({"data": [{"id": name, **row} for name in self.models]})


async def serve(port: int, latency_s: float) -> None:
    """Serve until killed."""
    async with StubServer(latency_s=latency_s, port=port, keep_requests=False) as server:
        print(server.url, flush=True)  # noqa: T201 - the caller reads where it listens
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-s", type=float, default=0.0)
    arguments = parser.parse_args()
    import uvloop

    uvloop.run(serve(arguments.port, arguments.latency_s))
