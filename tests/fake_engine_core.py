"""What tests/fake_engine.py serves: a tokenizer, a prefix cache by block hashes, replies, vLLM's refusals.

No HTTP here. Errors are vLLM 0.29's, word for word.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
CHARS_PER_TOKEN = 2
MAX_CHARS_PER_TOKEN = 4
BITS_PER_CHAR = 21
N_CHUNKS = 4
"""In how many parts the tokens of a reply come to be."""

END = "<|end|>"
SPECIAL = (END, "<|system|>", "<|user|>", "<|assistant|>")
"""Each a token of its own: its place in this list, from 1."""
_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")


def tokenize(text: str) -> list[int]:
    """Return a number for each two characters between special tokens; the text can be told from them."""
    ids = []
    for part in _SPECIAL.split(text):
        if part in SPECIAL:
            ids.append(SPECIAL.index(part) + 1)
        else:
            ids += _tokens(part)
    return ids


def sampled(text: str) -> list[int]:
    """Return ids of a text as a model might make them: not those that a tokenizer makes of it."""
    return [_token(char) for char in text[:1]] + _tokens(text[1:])


def _tokens(text: str) -> list[int]:
    return [_token(text[begin : begin + CHARS_PER_TOKEN]) for begin in range(0, len(text), CHARS_PER_TOKEN)]


def _token(chars: str) -> int:
    token = 1
    for char in chars:
        token = token << BITS_PER_CHAR | ord(char)
    return token


def detokenize(ids: Sequence[int], *, skip_special: bool = False) -> str:
    """Return the text that was tokenized."""
    texts = []
    for token in ids:
        if token <= len(SPECIAL):
            texts.append("" if skip_special else SPECIAL[token - 1])
            continue
        n_chars = (token.bit_length() - 1) // BITS_PER_CHAR
        chars = [token >> BITS_PER_CHAR * i & (1 << BITS_PER_CHAR) - 1 for i in reversed(range(n_chars))]
        texts.append("".join(map(chr, chars)))
    return "".join(texts)


TEMPLATES = ("plain", "strips", "forgets", "prefills", "moves")
"""`plain`: a conversation that goes on begins with the same text. Others: `strips` white space of replies;
`forgets` what was thought before the last user's message; `prefills` a thought that is in no history; `moves`
the system prompt to the last user's message."""


def render(
    messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool = True, template: str = "plain"
) -> str:
    """Apply a chat template."""
    if template == "moves":
        messages = _with_system_last(messages)
    turns = []
    for number, message in enumerate(messages):
        content = message.get("content") or ""
        if message["role"] == "assistant" and template == "strips":
            content = content.strip()
        if template == "forgets" and any(later["role"] == "user" for later in messages[number + 1 :]):
            content = content.rpartition("</think>\n\n")[2]
        turns.append(f"<|{message['role']}|>{content}{END}\n")
    if add_generation_prompt:
        turns.append("<|assistant|>" + ("<think>\n\n</think>\n\n" if template == "prefills" else ""))
    return "".join(turns)


def _with_system_last(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    system = [message["content"] for message in messages if message["role"] == "system"]
    others = [dict(message) for message in messages if message["role"] != "system"]
    last = [message for message in others if message["role"] == "user"][-1]
    last["content"] = "\n\n".join([*system, last["content"]])
    return others


def reply_to(prompt: str, seed: int) -> str:
    """Three cells and an answer, the same for the same prompt and seed."""
    n_replies = prompt.count("<|assistant|>") - 1
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).hexdigest()[:12]
    return f"```python\nprint('{digest}')\n```" if n_replies < 3 else f"All done. Answer: {digest}"


class PrefixCache:
    """Which blocks of tokens, each hashed with all before it, are held; the least recently used one goes."""

    def __init__(self, block_size: int, max_blocks: int) -> None:
        self.block_size = block_size
        self.max_blocks = max_blocks
        self.n_queries = 0
        self.n_hits = 0
        self._blocks: OrderedDict[bytes, None] = OrderedDict()

    def look_up(self, ids: Sequence[int], salt: str) -> int:
        """Return how many tokens of a prompt are held, and count; the last token is always computed."""
        n_blocks = 0
        for block in self._hashes(ids[:-1], salt):
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            n_blocks += 1
        self.n_queries += len(ids)
        self.n_hits += n_blocks * self.block_size
        return n_blocks * self.block_size

    def hold(self, ids: Sequence[int], salt: str) -> None:
        """Keep the whole blocks of a prompt and its reply."""
        for block in self._hashes(ids, salt):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self.max_blocks:
            self._blocks.popitem(last=False)

    @property
    def usage(self) -> float:
        """Of all blocks, how many are held."""
        return len(self._blocks) / self.max_blocks

    def _hashes(self, ids: Sequence[int], salt: str) -> Iterator[bytes]:
        digest = salt.encode()
        for begin in range(0, len(ids) - self.block_size + 1, self.block_size):
            block = ",".join(map(str, ids[begin : begin + self.block_size]))
            digest = hashlib.sha256(digest + block.encode()).digest()
            yield digest


class Refused(Exception):  # noqa: N818 - an HTTP answer
    """What vLLM answers instead of a completion."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class FakeCore:
    """Generates as many replies at once as it has seats. `die` makes all that are under way fail."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.model = options.served_model_name or options.model
        self.cache = PrefixCache(options.block_size, options.num_gpu_blocks_override)
        self.counts: Counter[str] = Counter()
        self.n_running = self.n_waiting = 0
        self.n_running_tokens = 0
        """Of the prompts that replies are being made to: what of the KV cache is in use."""

        self.hangs = False
        self.dead = asyncio.Event()
        self._seats = asyncio.Semaphore(options.max_num_seqs)

    async def generate(self, ids: list[int], body: dict[str, Any], chars: int) -> dict[str, Any]:
        """Return text, finish reason and counts of a reply. Raises Refused."""
        n_max = self._check(ids, body, chars)
        self.n_waiting += 1
        try:
            async with self._seats:
                self.n_waiting -= 1
                self.n_running += 1
                self.n_running_tokens += len(ids)
                try:
                    return await self._decode(ids, body, n_max)
                finally:
                    self.n_running -= 1
                    self.n_running_tokens -= len(ids)
                    self.n_waiting += 1
        finally:
            self.n_waiting -= 1

    async def _decode(self, ids: list[int], body: dict[str, Any], n_max: int) -> dict[str, Any]:
        salt = body.get("cache_salt") or ""
        n_cached = self.cache.look_up(ids, salt)
        text, reason, stop = _cut(reply_to(detokenize(ids), body.get("seed") or 0), body)
        output = sampled(text) if self.options.drift else tokenize(text)
        if stop is None and not body.get("ignore_eos"):
            output += tokenize(END)
        if body.get("ignore_eos"):
            output, reason = (output * (n_max // max(1, len(output)) + 1))[:n_max], "length"
        elif len(output) > n_max:
            output, reason, stop = output[:n_max], "length", None
        await self._spend(self.options.prefill_token_s * (len(ids) - n_cached))
        for part in range(N_CHUNKS):
            n_tokens = len(output) * (part + 1) // N_CHUNKS - len(output) * part // N_CHUNKS
            await self._spend(self.options.token_s * n_tokens)
            self.counts["generation"] += n_tokens
        self.counts["prompt"] += len(ids)
        self.counts["cached"] += n_cached
        self.counts[reason] += 1
        self.cache.hold([*ids, *output], salt)
        return {"output": output, "reason": reason, "stop": stop, "n_cached": n_cached}

    async def _spend(self, duration_s: float) -> None:
        """Pass the time that a GPU would need. Raises Refused when the core has died meanwhile."""
        if self.hangs:
            await self.dead.wait()
        if duration_s and not self.dead.is_set():
            try:
                async with asyncio.timeout(duration_s):
                    await self.dead.wait()
            except TimeoutError:
                return
        if self.dead.is_set():
            raise Refused(500, "InternalServerError", ENGINE_DEAD)

    def _check(self, ids: list[int], body: dict[str, Any], chars: int) -> int:
        """Return the most tokens that a reply may have. Raises Refused."""
        self.check_model(body)
        longest = self.options.max_model_len
        asked = body.get("max_completion_tokens") or body.get("max_tokens")
        if asked is not None and asked < 1:
            raise Refused(
                400, "BadRequestError", f"max_tokens must be at least 1, got {asked}.", "max_tokens"
            )
        n_output = asked or 0
        n_input = longest - n_output
        please = "Please reduce the length of the input prompt or the number of requested output tokens."
        begin = f"This model's maximum context length is {longest} tokens. However, you requested {n_output} output tokens"
        if chars > (max_chars := n_input * MAX_CHARS_PER_TOKEN):
            raise Refused(
                400, "BadRequestError",
                f"{begin} and your prompt contains {chars} characters (more than {max_chars} characters, which is "
                f"the upper bound for {n_input} input tokens). {please}", "input_text",
            )  # fmt: skip
        if len(ids) > n_input or len(ids) >= longest:
            raise Refused(
                400, "BadRequestError",
                f"{begin} and your prompt contains {len(ids)} input tokens, for a total of {len(ids) + n_output} "
                f"tokens. {please}", "input_tokens",
            )  # fmt: skip
        return asked or longest - len(ids)

    def check_model(self, body: dict[str, Any]) -> None:
        """Raise Refused where another model is asked for."""
        if body.get("model", self.model) != self.model:
            raise Refused(404, "NotFoundError", f"The model `{body['model']}` does not exist.", "model")

    def metrics(self) -> str:
        """Return the page that vLLM serves, of what the runner reads."""
        counts, cache = self.counts, self.cache
        label = f'engine="0",model_name="{self.model}"'
        values = {
            "num_requests_running": self.n_running,
            "num_requests_waiting": self.n_waiting,
            "kv_cache_usage_perc": min(1.0, self.n_running_tokens / (cache.block_size * cache.max_blocks)),
            "num_preemptions_total": 0,
            "prefix_cache_queries_total": cache.n_queries,
            "prefix_cache_hits_total": cache.n_hits,
            "prompt_tokens_total": counts["prompt"],
            "prompt_tokens_cached_total": counts["cached"],
            "generation_tokens_total": counts["generation"],
        }
        lines = [f"vllm:{name}{{{label}}} {float(value)}" for name, value in values.items()]
        lines += [
            f'vllm:num_requests_waiting_by_reason{{{label},reason="{reason}"}} {float(n)}'
            for reason, n in (("capacity", self.n_waiting), ("deferred", 0))
        ]
        lines += [
            f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {float(counts[reason])}'
            for reason in ("stop", "length", "abort", "error", "repetition")
        ]
        lines.append(
            f'vllm:cache_config_info{{{label},block_size="{cache.block_size}",num_gpu_blocks="{cache.max_blocks}"}} 1.0'
        )
        return "\n".join(lines) + "\n"


def _cut(text: str, body: dict[str, Any]) -> tuple[str, str, str | None]:
    """Return a reply up to its first stop string, why it ends, and at which."""
    stops = body.get("stop") or []
    found = [
        (text.find(stop), stop) for stop in ([stops] if isinstance(stops, str) else stops) if stop in text
    ]
    if not found:
        return text, "stop", None
    at, stop = min(found)
    return text[: at + len(stop) * bool(body.get("include_stop_str_in_output"))], "stop", stop
