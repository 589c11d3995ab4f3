"""What a list of models says of the one that is asked for."""

from __future__ import annotations

import orjson

from runner.models.endpoint import Answer
from runner.models.model_list import read_model_list

ROW = {"object": "model", "owned_by": "vllm"}
BASE = {**ROW, "id": "base", "root": "/models/base", "parent": None, "max_model_len": 4096}
ADAPTER = {**ROW, "id": "poet", "root": "/adapters/poet", "parent": "base", "max_model_len": None}


def test_an_adapter_has_the_window_of_its_model() -> None:
    """Its row has none; where it was loaded from is its own."""
    answer = Answer(200, {}, orjson.dumps({"data": [BASE, ADAPTER]}))
    listed = read_model_list(answer, "http://x/v1", "poet", None)
    assert (listed.max_model_len, listed.roots) == (4096, frozenset({"/adapters/poet"}))


def test_a_parent_may_be_anything() -> None:
    """A server's row is not trusted to hold a name there."""
    answer = Answer(200, {}, orjson.dumps({"data": [BASE, {**ADAPTER, "parent": {"id": "base"}}]}))
    assert read_model_list(answer, "http://x/v1", "poet", None).max_model_len is None
