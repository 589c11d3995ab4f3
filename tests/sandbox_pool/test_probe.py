from __future__ import annotations

import json
import os

import pytest

from sandbox_pool import PoolConfig, SandboxPool, probe
from sandbox_pool.__main__ import main


def test_probe_says_what_is_enforced() -> None:
    """The record names tier, kernel, uid policy and limits, and is JSON."""
    found = probe(PoolConfig(cpu_s=None))
    assert (found["tier"], found["kernel"], found["enforced"]["cpu"]) == (
        "process",
        "ipykernel",
        "not limited",
    )
    assert ("own uid" in found["uid_policy"]) is (os.geteuid() == 0)
    assert found["limits"]["max_output_bytes"] == 16 << 20
    assert found["warnings"]
    json.dumps(found)


def test_secrets_stay_out_of_the_record() -> None:
    """Values of the kernels' environment are not part of what a run records here."""
    found = SandboxPool(PoolConfig(environment={"TOKEN": "s3cret"})).capabilities()
    assert "s3cret" not in json.dumps(found)


@pytest.mark.parametrize("arguments", [["probe"], ["probe", "--json"]])
def test_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`probe` prints a table or JSON and succeeds."""
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "process" in said
    if "--json" in arguments:
        assert json.loads(said)["tier"] == "process"
