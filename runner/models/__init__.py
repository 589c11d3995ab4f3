"""Who answers: an OpenAI-compatible server, a recorded run, or a script."""

from runner.config import ModelConfig
from runner.models.base import Completion, ModelClient, ModelRequest
from runner.models.cache import CachingClient
from runner.models.conversation import Conversation
from runner.models.openai import OpenAIClient
from runner.models.replay import ReplayClient
from runner.models.scripted import NopClient, ScriptedClient

__all__ = [
    "CachingClient",
    "Completion",
    "Conversation",
    "ModelClient",
    "ModelConfig",
    "ModelRequest",
    "NopClient",
    "OpenAIClient",
    "ReplayClient",
    "ScriptedClient",
]
