"""A reply that was given before is not asked for again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.config import ModelConfig
from runner.errors import ConfigError
from runner.models import CachingClient, ModelRequest, OpenAIClient
from runner.models.conversation import Conversation
from tests.runner.factories import sample
from tests.runner.models.test_openai import Clock
from tests.stub_server import StubServer


def request(text: str = "hi", **changes: Any) -> ModelRequest:
    conversation = Conversation([{"role": "user", "content": text}])
    return ModelRequest(sample("s"), 1, 0, conversation, **changes)


async def cached(server: StubServer, folder: Path, **changes: Any) -> CachingClient:
    config = ModelConfig.model_validate({"client": "openai:x", "cache": folder} | changes)
    client = CachingClient(OpenAIClient([server.url], config), folder)
    await client.start()
    return client


async def test_same_request_is_made_once(tmp_path: Path) -> None:
    """Also in another process; another message, seed or option is another request."""
    async with StubServer() as server:
        first = await cached(server, tmp_path / "c")
        replies = [await first.complete(request()) for _ in range(3)]
        await first.complete(request("other"))
        await first.complete(request(seed=1))
        await first.close()
        second = await cached(server, tmp_path / "c")
        replies.append(await second.complete(request()))
        await second.close()
        third = await cached(server, tmp_path / "c", request={"temperature": 0})
        await third.complete(request())
        await third.close()
    assert len(server.requests) == 4
    assert all(reply == replies[0] for reply in replies)
    assert [reply.is_cached for reply in replies] == [False, True, True, True]
    assert replies[0].usage.total_tokens == 18


async def ask_both(folder: Path, first: StubServer, second: StubServer) -> int:
    """Ask two servers the same, one after the other; return how many had to answer."""
    async with first, second:
        for server in (first, second):
            client = await cached(server, folder, name="default")
            await client.complete(request())
            await client.close()
    return len(first.requests) + len(second.requests)


async def test_servers_share_no_replies(tmp_path: Path) -> None:
    """Two that call different models by one name are told apart, by their addresses if by nothing else."""
    assert await ask_both(tmp_path, StubServer(), StubServer()) == 2


@pytest.mark.parametrize(("roots", "n_asked"), [(("/a", "/b"), 2), (("/a", "/a"), 1), ((None, None), 2)])
async def test_vllm_says_which_model_it_serves(
    tmp_path: Path, roots: tuple[str | None, ...], n_asked: int
) -> None:
    """Its replies are known again behind another address."""
    first, second = (StubServer(models=("default",), owned_by="vllm", root=root) for root in roots)
    assert await ask_both(tmp_path, first, second) == n_asked


async def test_concurrent_requests_make_one_call(tmp_path: Path) -> None:
    """The others wait for it; a cancelled one leaves the call to the next."""
    async with StubServer(latency_s=0.05) as server:
        client = await cached(server, tmp_path)
        calls = [asyncio.create_task(client.complete(request())) for _ in range(5)]
        while not server.requests:  # noqa: ASYNC110 - the server has no event to wait for
            await asyncio.sleep(0)
        calls[0].cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        await client.close()
    assert isinstance(results[0], asyncio.CancelledError)
    assert len({result.text for result in results[1:]}) == 1  # type: ignore[union-attr]
    assert len(server.requests) == 2


async def test_wait_for_an_equal_request_is_a_wait(tmp_path: Path) -> None:
    """Who asked second is told that the time is not its own."""
    clocks = [Clock(), Clock()]
    async with StubServer(latency_s=0.2) as server:
        client = await cached(server, tmp_path)
        await asyncio.gather(*(client.complete(request(clock=clock)) for clock in clocks))
        await client.close()
    assert clocks[1].waited_s > 0.1
    assert clocks[0].waited_s < clocks[1].waited_s / 2


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"text": "x"}', b'{"text": "x", "usage": {"a": 1}}'])
async def test_torn_file_is_a_miss(tmp_path: Path, content: bytes) -> None:
    """A file that is not whole is asked for again, and replaced."""
    async with StubServer() as server:
        client = await cached(server, tmp_path)
        await client.complete(request())
        (file,) = tmp_path.rglob("*.json")
        file.write_bytes(content)
        await client.complete(request())
        await client.complete(request())
        await client.close()
    assert len(server.requests) == 2


async def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Refused before anything is asked."""
    (tmp_path / "file").write_text("")
    async with StubServer() as server:
        with pytest.raises(ConfigError, match=r"model.cache: .* cannot be made"):
            await cached(server, tmp_path / "file" / "c")
