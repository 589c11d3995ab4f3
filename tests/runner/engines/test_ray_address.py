"""What is said of an address where no head of Ray is, or none that lets us in; Ray itself is not needed."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runner.engines import ray_address
from runner.engines.ray_address import ask_head, check_address, describe_refusal
from runner.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "ray job submit"),
        ("ray://127.0.0.1:10001", "ray job submit"),
        ("head", "write HOST:PORT"),
        ("head:", "write HOST:PORT"),
        ("127.0.0.1:99999", "nothing answers there"),
    ],
)
def test_what_is_no_address_of_a_head(address: str, message: str) -> None:
    """The dashboard's and the client's addresses are told from it."""
    with pytest.raises(ConfigError, match=message):
        check_address(address)


def test_an_address_where_nothing_listens() -> None:
    """Found at once: Ray itself would try for long."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"{address}: nothing answers there .* correct the address"):
            check_address(address)
        free.listen()
        check_address(address)
    check_address("auto")


@pytest.fixture(name="rays_client")
def _rays_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where code stands for Ray's client of a head, in processes that are started."""
    package = tmp_path / "ray"
    (package / "_private").mkdir(parents=True)
    for name in ("__init__.py", "_private/__init__.py"):
        (package / name).touch()
    resolve = "def canonicalize_bootstrap_address_or_die(address): return address\n"
    (package / "_private" / "services.py").write_text(resolve)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return package / "_raylet.py"


REFUSED = "RPC error: InvalidAuthToken: Authentication token is missing or incorrect"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (f"raise RuntimeError({REFUSED!r})", "refused this process's token.*set RAY_AUTH_MODE=token"),
        (
            "import os, sys\n"
            "print('Check failed: Ray couldn\\'t find an authentication token', file=sys.stderr)\n"
            "print('*** StackTrace Information ***', file=sys.stderr)\nos.abort()",
            "there is no token here; set RAY_AUTH_TOKEN",
        ),
        ("raise OSError('it is on fire')", r"no connection \(OSError: it is on fire\); correct the address"),
        ("import os; os._exit(3)", "exit code 3"),
    ],
)
def test_a_head_that_refuses(rays_client: Path, code: str, says: str) -> None:
    """Whatever becomes of the process that asks it."""
    rays_client.write_text(f"def GcsClient(address):\n    {code.replace(chr(10), chr(10) + '    ')}\n")
    with pytest.raises(ConfigError, match=f"^Ray address 192.0.2.1:6379: .*{says}"):
        ask_head("192.0.2.1:6379")


def test_a_head_that_does_not_answer(rays_client: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end, of ours: Ray's are minutes."""
    monkeypatch.setattr(ray_address, "ANSWER_TIMEOUT_S", 0.3)
    rays_client.write_text("import time\ndef GcsClient(address):\n    time.sleep(60)\n")
    with pytest.raises(ConfigError, match=r"auto: no head of Ray has answered there within 0.3 s"):
        ask_head("auto")


def test_how_long_an_import_takes_says_nothing_of_a_head(
    rays_client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it takes longer than a head that is there needs to answer."""
    monkeypatch.setattr(ray_address, "ANSWER_TIMEOUT_S", 0.6)
    rays_client.write_text("import time\ntime.sleep(0.8)\ndef GcsClient(address): pass\n")
    ask_head("192.0.2.1:6379")


@pytest.mark.parametrize("code", ["def GcsClient(address): pass", "OtherClient = None"])
def test_a_head_that_answers_or_cannot_be_asked(rays_client: Path, code: str) -> None:
    """Then Ray itself connects, or says why not."""
    rays_client.write_text(f"{code}\n")
    ask_head("192.0.2.1:6379")


MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.48.0\n    Python: 3.12.1\nThis process on "
    "node 192.0.2.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)


@pytest.mark.parametrize(
    ("address", "reason", "says"),
    [
        ("192.0.2.1:6379", MISMATCH, ["Ray: 2.48.0", "Ray: 2.60.0", "install the cluster's versions"]),
        ("192.0.2.1:6379", "InvalidAuthToken: Authentication token is missing", ["RAY_AUTH_MODE=token"]),
        ("192.0.2.1:6379", "Could not read", ["Could not read", "ray status"]),
        ("local", "Failed to start GCS", ["no Ray could be started", "engines.kind: local"]),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_with_the_remedy(address: str, reason: str, says: list[str]) -> None:
    """Whatever Ray's own message looks like."""
    message = describe_refusal(address, reason)
    assert all(part in message for part in says), message
    assert "\n" not in message
