"""What is said of a Ray cluster that cannot be used; Ray itself is not needed for that."""

from __future__ import annotations

import socket
import sys

import pytest

from runner.engines.ray_connection import check_address, connect, describe_refusal
from runner.errors import ConfigError


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target that installs it, and the setting that needs none."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        ConfigError, match=r"Ray is not installed here .*make install-engines.*engines\.kind to local"
    ):
        connect("127.0.0.1:6379")


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


MISMATCH = (
    "Version mismatch: The cluster was started with:\n    Ray: 2.48.0\n    Python: 3.12.1\nThis process on "
    "node 192.0.2.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
)


@pytest.mark.parametrize(
    ("address", "error", "says"),
    [
        ("192.0.2.1:6379", RuntimeError(MISMATCH), ["Ray: 2.48.0", "Ray: 2.60.0", "install the cluster's versions"]),
        ("192.0.2.1:6379", RuntimeError("InvalidAuthToken: Authentication token is missing"), ["RAY_AUTH_MODE=token"]),
        ("192.0.2.1:6379", ConnectionError("Could not read"), ["Could not read", "ray status"]),
        ("local", RuntimeError("Failed to start GCS"), ["no Ray could be started", "engines.kind to local"]),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_with_the_remedy(address: str, error: Exception, says: list[str]) -> None:
    """Whatever Ray's own message looks like."""
    message = describe_refusal(address, error)
    assert all(part in message for part in says), message
    assert "\n" not in message
