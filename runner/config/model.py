"""The `model:` section: who answers, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from runner.config.base import ConfigModel


class Prices(ConfigModel):
    """What a model costs, per million tokens, in one currency for all."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


class ModelConfig(ConfigModel):
    """Who answers. In YAML a bare string stands for `client`."""

    client: str = "oracle"
    """`vllm:PATH_OR_ID` (engines of our own), `openai:URL[,URL...]` (servers of one model), `replay:FILE`,
    `oracle`, `decoy` or `nop`."""

    name: str | None = None
    """The model's name in requests; when unset, the only one that the server lists."""

    request: dict[str, Any] = Field(default_factory=dict)
    """Merged verbatim into the request body: temperature, max_tokens, top_p, ... A `stop` here replaces the
    protocol's own."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with every request. Their values are not written to the run directory."""

    api_key_env: str | None = None
    """The environment variable that holds the API key; None: no Authorization header."""

    timeout_s: float = Field(default=600.0, gt=0)
    """For one request, from sending it to the last byte of the answer."""

    max_retries: int = Field(default=6, ge=0)
    """Further tries of a request after a connection error, 408, 429, 5xx or an unreadable answer."""

    max_backoff_s: float = Field(default=30.0, ge=0)
    """Longest wait between two tries, unless the server's Retry-After asks for more; for more than
    `timeout_s`, the call fails."""

    transport: Literal["chat", "tokens"] = "chat"
    """`chat`: the conversation as text, at each turn. `tokens`: as token ids, to which each turn only adds,
    so that nothing is tokenised again and the prefix cache always hits; for vLLM, plain text and chat
    templates that keep earlier turns as they are, which is checked before the run."""

    send_seed: bool = True
    """Send a `seed` with each request, derived from the attempt's; one in `request` replaces it."""

    send_reasoning: bool = False
    """Send back what the model thought in earlier turns (`reasoning_content`); it is recorded either way."""

    prices: Prices | None = None
    """None: nothing is known of costs, and no limit on them may be set."""

    cache: Path | None = None
    """A folder of replies by the content of their requests: a request that was made before is not made again.
    For judges, and for temperature 0."""

    @field_validator("request")
    @classmethod
    def _asks_for_a_reply(cls, request: dict[str, Any]) -> dict[str, Any]:
        """A server's refusal of no reply reads like that of a prompt that fills the window."""
        for key in ("max_tokens", "max_completion_tokens"):
            n_tokens = request.get(key)
            if isinstance(n_tokens, int) and n_tokens < 1:
                raise ValueError(f"{key} must be at least 1, or left out for as much as the server gives")
        return request
