from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from sandbox_pool import PoolConfig, UnsupportedHost, probe
from sandbox_pool.__main__ import main
from sandbox_pool.host.probe import capabilities, look
from sandbox_pool.host.tiers import choose_tier, lacks


def test_probe_says_what_is_enforced() -> None:
    """The record names tier, kernel, uid policy, limits and each tier, and is JSON."""
    found = probe(PoolConfig(cpu_s=None, tier="process", allow_unsafe=True))
    assert (found["tier"], found["kernel"], found["enforced"]["cpu"]) == ("process", "lean", "not limited")
    assert ("own uid" in found["uid_policy"]) is (os.geteuid() == 0)
    assert found["limits"]["max_output_bytes"] == 16 << 20
    assert found["tiers"].keys() == {"namespace", "landlock", "process"}
    assert found["warnings"]
    assert json.loads(json.dumps(found)) == found


def test_limits_are_those_of_the_profile_in_use() -> None:
    """What is recorded is what samples that name no profile get."""
    config = PoolConfig(profiles={"up": {"kernel": "ipykernel", "cpu_s": 7}}, profile="up")
    found = probe(config)
    assert (found["kernel"], found["limits"]["cpu_s"]) == ("ipykernel", 7)


def test_secrets_stay_out_of_the_record() -> None:
    """Values of the kernels' environment are not part of what a run records here."""
    config = PoolConfig(environment={"TOKEN": "s3cret"}, profiles={"a": {"environment": {"B": "s3cret"}}})
    assert "s3cret" not in json.dumps(probe(config))


def test_no_tier_is_a_record_too() -> None:
    """Where nothing can be held, the record says why, with the interpreter's own words."""
    found = probe(PoolConfig(python=Path("/no/such/python")))
    assert found["tier"] == "none"
    assert "cannot start /no/such/python (sandbox.python)" in found["warnings"][0]
    assert found["tiers"]["namespace"]["is_available"] is False
    json.dumps(found)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\necho nonsense", "no Python .* it wrote: nonsense"),
        ("#!/bin/sh\necho '[1]'", "no Python"),
        ("#!/bin/sh\necho broken >&2; exit 3", "it wrote: broken"),
        ("#!/bin/sh\nprintf '\\377'", "no Python"),
        ("no program at all", "Exec format error"),
        ("#!/no/such/interpreter", "No such file"),
    ],
)
def test_interpreter_that_is_none(tmp_path: Path, script: str, says: str) -> None:
    """Whatever `python` names, the answer is an error that says what it did."""
    program = tmp_path / "python"
    program.write_text(script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    config = PoolConfig(python=program)
    with pytest.raises(UnsupportedHost, match=says):
        choose_tier(config, look(config))


def test_this_machine_is_looked_at() -> None:
    """The facts of this machine lead to a tier, or to an error that names each one's lack."""
    config = PoolConfig()
    facts = look(config)
    assert facts.interpreters[str(config.python)].python == sys.version.split()[0]
    assert facts.uid == os.geteuid()
    if not (lacks("namespace", facts) and lacks("landlock", facts)):
        tier, said = choose_tier(config, facts)
        record = capabilities(config, facts, tier, said)
        assert record["tiers"][tier]["is_available"]
        assert record["enforced"] == record["tiers"][tier]["enforced"]
    else:
        with pytest.raises(UnsupportedHost, match="no tier namespace"):
            choose_tier(config, facts)


@pytest.mark.parametrize("arguments", [["probe"], ["probe", "--json"]])
def test_command_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`probe` prints a table or JSON, tier by tier, and succeeds where there is a tier."""
    status = main(arguments)
    said = capsys.readouterr().out
    for tier in ("namespace", "landlock", "process"):
        assert tier in said
    if "--json" in arguments:
        assert (json.loads(said)["tier"] == "none") is (status == 1)
    else:
        assert ("taken" in said) is (status == 0)


def test_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option is named, an interpreter that cannot be used ends in 1."""
    assert main(["probe", "--tier", "vm"]) == 2
    assert "--tier" in capsys.readouterr().err
    assert main(["probe", "--python", "/no/such/python"]) == 1
    assert "cannot start /no/such/python" in capsys.readouterr().out
