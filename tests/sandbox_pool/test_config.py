from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sandbox_pool import PoolConfig, UnknownProfile
from sandbox_pool.config import Profile


def test_own_keys_are_the_default_profile() -> None:
    """What the config says of a Profile holds for samples that name none."""
    config = PoolConfig(kernel="ipykernel", cpu_s=7, environment={"A": "1"})
    for profile in (config.profile_named(None), config.profile_named("default")):
        assert type(profile) is Profile
        assert (profile.kernel, profile.cpu_s, profile.environment) == ("ipykernel", 7, {"A": "1"})


def test_profile_is_laid_over_the_default() -> None:
    """A key of a profile replaces the whole value; the others are the config's own."""
    config = PoolConfig(
        cpu_s=7,
        environment={"A": "1"},
        profiles={"up": {"kernel": "ipykernel", "environment": {"B": "2"}, "preload": []}},
        profile="up",
    )
    up = config.profile_named(None)
    assert up == config.profile_named("up")
    assert (up.kernel, up.cpu_s, up.environment, up.preload) == ("ipykernel", 7, {"B": "2"}, ())
    assert config.profile_named("default").kernel == "lean"


def test_unknown_profile_is_named_with_the_known() -> None:
    """Asking for a profile that is not there says which are."""
    with pytest.raises(UnknownProfile, match="'nope': known are default, up"):
        PoolConfig(profiles={"up": {}}).profile_named("nope")


@pytest.mark.parametrize(
    ("data", "place", "says"),
    [
        ({"profiles": {"up": {"kernl": "lean"}}}, ("profiles", "up", "kernl"), "Extra inputs"),
        ({"profiles": {"up": {"kernel": "fat"}}}, ("profiles", "up", "kernel"), "'lean' or 'ipykernel'"),
        ({"profiles": {"up": {"tier": "process"}}}, ("profiles", "up", "tier"), "Extra inputs"),
        ({"profiles": {"up": {"max_cores": 0}}}, ("profiles", "up", "max_cores"), "greater than 0"),
        ({"profiles": {"default": {}}}, ("profiles",), "own keys"),
        ({"profiles": {"a/b": {}}}, ("profiles",), "'a/b' cannot name a profile"),
        ({"profile": "nope"}, ("profile",), "'nope': known are default"),
        ({"uid": 0}, ("uid",), "root's"),
        ({"uid": -1}, ("uid",), "from 1 to"),
        ({"uid": 2**32 - 1}, ("uid",), "from 1 to"),
        ({"tier": "container"}, ("tier",), "'auto', 'namespace', 'landlock' or 'process'"),
        ({"mounts": {"data": "/x"}}, ("mounts",), "absolute path"),
        ({"mounts": {"/a/../b": "/x"}}, ("mounts",), "'..'"),
        ({"mounts": {"/": "/x"}}, ("mounts",), "'/' is no place"),
        ({"mounts": {"/proc/x": "/x"}}, ("mounts",), "lies where the sandbox has its own"),
        ({"mounts": {"/sandbox": "/x"}}, ("mounts",), "lies where the sandbox has its own"),
        ({"environment": {"A=B": "1"}}, ("environment",), "without '='"),
        ({"environment": {"A": "\0"}}, ("environment",), "NUL"),
        ({"memory_byte": 1}, ("memory_byte",), "Extra inputs"),
    ],
)
def test_mistakes_are_placed(data: dict[str, Any], place: tuple[str, ...], says: str) -> None:
    """A mistake is found when the config is read, at the key that it is in."""
    with pytest.raises(ValidationError) as caught:
        PoolConfig.model_validate(data)
    (problem,) = caught.value.errors()
    assert problem["loc"] == place
    assert says in problem["msg"]


def test_unsafe_tier_is_no_mistake_of_the_config() -> None:
    """Whoever opens the pool refuses the tier `process`, so that a config can be read and shown anywhere."""
    assert PoolConfig(tier="process").allow_unsafe is False


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths count from the folder in which the config was read; targets are cleaned."""
    monkeypatch.chdir(tmp_path)
    config = PoolConfig.model_validate(
        {"python": "venv/bin/python", "mounts": {"/data//set/": "in"}, "extra_paths": ["wheels"]}
    )
    assert config.python == tmp_path / "venv/bin/python"
    assert config.mounts == {"/data/set": tmp_path / "in"}
    assert config.extra_paths == (tmp_path / "wheels",)


def test_python_by_name_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name is looked for where the shell would; one that is nowhere is kept for the error later."""
    (tmp_path / "py").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert PoolConfig(python=Path("py")).python == tmp_path / "py"
    assert shutil.which("no-such-python") is None
    assert PoolConfig(python=Path("no-such-python")).python == Path("no-such-python")


def test_config_survives_json() -> None:
    """What a run records can be read back."""
    config = PoolConfig(profiles={"up": {"preload": ["numpy"], "mounts": {"/d": "/e"}}}, profile="up")
    assert PoolConfig.model_validate(config.model_dump(mode="json")) == config
