"""A process that is to vLLM's API server what a stage set is to a house: same doors, no model behind them.

`python -m tests.fake_engine --model PATH --port 8000 --token-s 0.001`. It has a child named EngineCore that
ignores SIGTERM and outlives it, speaks vLLM's API with its errors word for word, counts a true prefix cache, and dies or hangs when asked: `POST /admin/die?how=HOW`, see WAYS_TO_DIE.
Options that it does not know are taken as vLLM's, and ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from tests.fake_engine_core import TEMPLATES, FakeCore, Refused, detokenize, render, tokenize
from tests.processes import ROOT

COMMAND = (sys.executable, "-m", "tests.fake_engine")
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
WAYS_TO_DIE = ("core500", "exit", "oom", "hang", "freeze", "reset")
START_FAULTS = ("oom", "kv", "crash", "never", "argument", "port")
N_SEGMENTS = 3000
"""Of shared memory: to remove them takes a while."""

CORE = (
    "import signal, threading; "
    "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]; "
    "threading.Event().wait()"
)
CUDA_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.1 GiB"
NO_KV_SPACE = (
    "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (3.10 GiB)."
)


def write_model(folder: Path, **config: Any) -> Path:
    """Write what a checked model folder must have, and return it; `config` goes into config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "architectures": ["FakeForCausalLM"],
        "num_attention_heads": 8,
        "torch_dtype": "float32",
        **config,
    }
    (folder / "config.json").write_text(json.dumps(facts))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"})
    )
    (folder / "model.safetensors").write_bytes(bytes(1024))
    return folder


class FakeEngine:
    """The server of a process; `core` is the part without HTTP, `child` the process that holds a GPU."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.core = FakeCore(options)
        self.n_load = 0
        self.requests: dict[int, web.Request] = {}

    def start_core(self) -> None:
        """Start the child; without it, only `core500` is no way to die."""
        if self.core.options.shared_memory:
            for number in range(N_SEGMENTS):
                SharedMemory(f"{self.core.options.shared_memory}-{number}", create=True, size=1).close()
        self.child = subprocess.Popen(
            ["VLLM::EngineCore", "-I", "-S", "-c", CORE], executable=sys.executable, stdout=subprocess.DEVNULL
        )
        self.child_ended = os.pidfd_open(self.child.pid)

    def application(self) -> web.Application:
        """Return the app with vLLM's routes."""
        application = web.Application(client_max_size=1 << 30, middlewares=[self._answer_errors])
        application.router.add_routes(
            [
                web.get("/health", self._health),
                web.get("/metrics", self._metrics),
                web.get("/load", self._load),
                web.get("/version", self._version),
                web.get("/v1/models", self._models),
                web.post("/tokenize", self._tokenize),
                web.post("/detokenize", self._detokenize),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/completions", self._completions),
                web.post("/admin/die", self._die),
            ]
        )
        return application

    def on_child_end(self) -> None:
        """An error for all that is in flight, and soon the end."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.child_ended)
        log("ERROR EngineCore died unexpectedly")
        self.core.dead.set()
        loop.call_later(0.3, os._exit, 1)

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests[id(request)] = request
        try:
            return await handler(request)
        except Refused as refused:
            return answer(refused.body, refused.status)
        finally:
            del self.requests[id(request)]

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=503 if self.core.dead.is_set() else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=self.core.metrics())

    async def _load(self, request: web.Request) -> web.Response:
        return answer({"server_load": self.n_load})

    async def _version(self, request: web.Request) -> web.Response:
        return answer({"version": "0.29.0"})

    async def _models(self, request: web.Request) -> web.Response:
        row = {"id": self.core.model, "object": "model", "owned_by": "vllm"}
        return answer({"object": "list", "data": [{**row, "max_model_len": self.core.options.max_model_len}]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        self.core.check_model(body)
        text = self._render(body) if "messages" in body else body["prompt"]
        ids = tokenize(text)
        return answer({"count": len(ids), "max_model_len": self.core.options.max_model_len, "tokens": ids})

    async def _detokenize(self, request: web.Request) -> web.Response:
        return answer({"prompt": detokenize(orjson.loads(await request.read())["tokens"])})

    async def _chat(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        text = self._render(body)
        ids = tokenize(text)
        made = await self._generate(ids, body, len(text))
        said = detokenize(made["output"], skip_special=True)
        message = {"role": "assistant", "content": said, "tool_calls": []}
        return answer(self._completion("chat.completion", ids, made, body, message=message))

    async def _completions(self, request: web.Request) -> web.Response:
        body = orjson.loads(await request.read())
        prompt = body["prompt"]
        ids = tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        made = await self._generate(ids, body, len(prompt) if isinstance(prompt, str) else 0)
        said: dict[str, Any] = {"text": detokenize(made["output"], skip_special=True)}
        if body.get("logprobs") is not None:
            said["logprobs"] = completion_logprobs(made["output"], body)
        return answer(self._completion("text_completion", ids, made, body, **said))

    def _render(self, body: dict[str, Any]) -> str:
        adds = body.get("add_generation_prompt", True)
        return render(body["messages"], add_generation_prompt=adds, template=self.core.options.template)

    async def _generate(self, ids: list[int], body: dict[str, Any], n_chars: int) -> dict[str, Any]:
        self.n_load += 1
        try:
            return await self.core.generate(ids, body, n_chars)
        finally:
            self.n_load -= 1

    def _completion(
        self, kind: str, ids: list[int], made: dict[str, Any], body: dict[str, Any], **said: Any
    ) -> dict[str, Any]:
        choice = {
            "index": 0,
            "finish_reason": made["reason"],
            "stop_reason": made["stop"],
            "logprobs": None,
            **said,
        }
        whole: dict[str, Any] = {"id": f"fake-{os.getpid()}", "object": kind, "model": self.core.model}
        if body.get("return_token_ids"):
            choice["token_ids"] = made["output"]
            place = whole if kind == "chat.completion" else choice
            place["prompt_token_ids"] = ids
        n_output = len(made["output"])
        usage = {
            "prompt_tokens": len(ids), "completion_tokens": n_output, "total_tokens": len(ids) + n_output,
            "prompt_tokens_details": {"cached_tokens": made["n_cached"]},
        }  # fmt: skip
        return {**whole, "choices": [choice], "usage": usage}

    async def _die(self, request: web.Request) -> web.Response:
        match how := request.query.get("how", ""):
            case "core500":
                self.child.kill()
            case "exit":
                os._exit(1)
            case "oom":
                log(CUDA_OOM)
                os._exit(1)
            case "hang":
                self.core.hangs = True
            case "freeze":
                time.sleep(1e6)  # noqa: ASYNC251 - nothing is served any more, metrics included
            case "reset":
                self._reset(request)
            case _:
                raise Refused(400, "BadRequestError", f"{how}: no such way; known: {', '.join(WAYS_TO_DIE)}")
        return answer({"how": how})

    def _reset(self, but: web.Request) -> None:
        """Break all connections with a request in flight, as a failing network does."""
        for request in self.requests.values():
            if request is but or request.transport is None:
                continue
            connection = request.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort()


def answer(body: dict[str, Any], status: int = 200) -> web.Response:
    """Return JSON."""
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def completion_logprobs(ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
    """Return logprobs as completions have them, the same for every token."""
    as_ids = body.get("return_tokens_as_token_ids")
    tokens = [f"token_id:{token}" if as_ids else detokenize([token], skip_special=True) for token in ids]
    return {
        "text_offset": [0] * len(ids),
        "tokens": tokens,
        "token_logprobs": [-0.5] * len(ids),
        "top_logprobs": [{token: -0.5} for token in tokens],
    }


def log(line: str) -> None:
    """Write to what is the engine's log."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - its own output


def fail_to_start(options: argparse.Namespace) -> None:
    """End, or never be ready, as `--start-fault` says."""
    match options.start_fault:
        case "oom":
            log(CUDA_OOM)
        case "kv":
            log(NO_KV_SPACE)
        case "argument":
            log("api_server.py: error: unrecognized arguments: --no-such-option")
        case "port":
            log("OSError: [Errno 98] error while attempting to bind on address: address already in use")
        case "crash":
            log("RuntimeError: the reason")
        case "never":
            time.sleep(1e6)
        case _:
            return
    sys.exit(1)


async def serve(options: argparse.Namespace) -> None:
    """Serve until SIGTERM."""
    engine = FakeEngine(options)
    engine.start_core()
    asyncio.get_running_loop().add_reader(engine.child_ended, engine.on_child_end)
    await asyncio.sleep(options.start_s)
    fail_to_start(options)
    runner = web.AppRunner(engine.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, options.host, options.port, backlog=2048).start()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await runner.cleanup()


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the options that matter here; all others are vLLM's."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default="fake")
    parser.add_argument("--served-model-name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-model-len", type=int, default=32768)
    parser.add_argument("--max-num-seqs", type=int, default=256)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--num-gpu-blocks-override", type=int, default=65536)
    parser.add_argument("--token-s", type=float, default=0.0, help="a token of a reply")
    parser.add_argument(
        "--prefill-token-s", type=float, default=0.0, help="a token of a prompt, if not cached"
    )
    parser.add_argument("--template", choices=TEMPLATES, default="plain")
    parser.add_argument("--drift", action="store_true", help="make replies of ids that no tokenizer makes")
    parser.add_argument("--shared-memory", help="how names in /dev/shm begin, taken and never given back")
    parser.add_argument("--start-s", type=float, default=0.0, help="until it is ready")
    parser.add_argument("--start-fault", choices=START_FAULTS)
    return parser.parse_known_args(arguments)[0]


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(parse(sys.argv[1:])))
