"""`model.transport: tokens` on real vLLM: a run's prompts only grow, and hit its prefix cache at least as often."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

import runner
from runner.errors import ConfigError
from runner.models.endpoint import Answer, Endpoint
from runner.records import Trajectory
from tests.bench.conversations import cached, client
from tests.engines_real.hosted import hosted_vllm, vllm_config
from tests.engines_real.serving import BOOT_LIMIT_S, NAME
from tests.runner.engines.test_open_engines import ask

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(2 * BOOT_LIMIT_S),
    pytest.mark.asyncio(loop_factories=["uvloop"]),
]

CODE = r"```python\nprint\([1-9][0-9]{0,5}\)\n```"
N_TURNS = 5


async def run(urls: list[str], folder: Path, transport: str) -> list[Trajectory]:
    """Run some of the quickstart; each reply is a cell."""
    config = {
        "model": {
            "client": f"openai:{','.join(urls)}", "name": NAME, "transport": transport, "send_seed": False,
            "request": {
                "max_tokens": 64, "structured_outputs": {"regex": CODE}, "cache_salt": transport, "logprobs": True,
            },
        },
        "limit": 4, "epochs": 3, "concurrency": 6, "run_dir": str(folder / transport),
        "limits": {"max_turns": N_TURNS},
    }  # fmt: skip
    return [trajectory async for trajectory in runner.run(config)]


class Replies:
    """What the endpoints answered to ids, in order, by the conversation's first prompt and how it went on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.choices: list[dict[str, Any]] = []
        post = Endpoint.post

        async def recording(
            endpoint: Endpoint, http: aiohttp.ClientSession, body: bytes, path: str = "chat/completions"
        ) -> Answer:
            answer = await post(endpoint, http, body, path)
            if path == "completions" and answer.status == 200 and orjson.loads(body)["max_tokens"] > 1:
                self.choices.append(orjson.loads(answer.body)["choices"][0])
            return answer

        monkeypatch.setattr(Endpoint, "post", recording)

    def chains(self) -> list[list[dict[str, Any]]]:
        """Return the turns of each trajectory: a prompt that begins with another's prompt and reply follows it."""
        chains: list[list[dict[str, Any]]] = []
        for choice in self.choices:
            prompt = choice["prompt_token_ids"]
            for chain in chains:
                before = chain[-1]["prompt_token_ids"] + chain[-1]["token_ids"]
                if prompt[: len(before)] == before:
                    chain.append(choice)
                    break
            else:
                chains.append([choice])
        return chains


async def test_a_run_in_token_ids(pair: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids as vLLM had them; text on disk as ever; hits no fewer than with chat, by vLLM's own count."""
    replies = Replies(monkeypatch)
    rates: dict[str, float] = {}
    found: dict[str, list[Trajectory]] = defaultdict(list)
    for transport in ("chat", "tokens"):
        before = await cached(pair)
        found[transport] = await run(pair, tmp_path, transport)
        after = await cached(pair)
        rates[transport] = (after.n_hits - before.n_hits) / (after.n_queries - before.n_queries)
    assert [len(trajectory.turns) for trajectory in found["tokens"]] == [N_TURNS] * 12
    assert sorted(map(len, replies.chains())) == [N_TURNS] * 12
    assert rates["tokens"] >= rates["chat"]

    root = pair[0].removesuffix("/v1")
    longest = max(replies.choices, key=lambda choice: len(choice["prompt_token_ids"]))
    _, said = await ask(root, "detokenize", model=NAME, tokens=longest["prompt_token_ids"])
    _, whole = await ask(root, "detokenize", model=NAME, tokens=longest["token_ids"])
    (of_it,) = [
        trajectory
        for trajectory in found["tokens"]
        if trajectory.turns[-1].completion in whole["prompt"]
        and trajectory.messages[-1]["content"] not in said["prompt"]
        and all(message["content"] in said["prompt"] for message in trajectory.messages[:-2])
    ][:1]
    _, template = await ask(root, "tokenize", model=NAME, messages=of_it.messages[:-2])
    _, written = await ask(root, "detokenize", model=NAME, tokens=template["tokens"])
    assert said["prompt"] == written["prompt"]
    assert of_it.turns[-1].logprobs["content"][0]["token"] == f"token_id:{longest['token_ids'][0]}"
    line = json.loads((tmp_path / "tokens" / "trajectories.jsonl").read_text().splitlines()[0])
    other = json.loads((tmp_path / "chat" / "trajectories.jsonl").read_text().splitlines()[0])
    assert line.keys() == other.keys()
    assert line["turns"][0].keys() == other["turns"][0].keys()


async def test_a_template_that_forgets_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    """By what vLLM itself renders."""
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for message in messages %}<|start|>{{ message['role'] }}\n"
        "{{ message['content'].split('</think>\n\n')[-1] if not loop.last else message['content'] }}<|end|>"
        "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}",
        encoding="utf-8",
    )
    with hosted_vllm(vllm_config(tiny_llama, chat_template=str(template)), tmp_path / "logs") as urls:
        model = client(urls, 1, name=NAME, transport="tokens")
        with pytest.raises(ConfigError, match="does not keep what the model thought as it was"):
            await model.start()
        await model.close()
