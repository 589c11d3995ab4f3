"""Whether a Ray head answers at an address: Ray itself would try for minutes, and say little in the end."""

from __future__ import annotations

import select
import socket
import subprocess
import sys

from runner.errors import ConfigError

AUTO = "auto"
"""In place of an address: the cluster that `ray start` began on this machine."""

LOCAL = "local"
"""In place of an address: a Ray of our own on this machine, which ends with this process."""

CONNECT_TIMEOUT_S = 10.0
IMPORT_TIMEOUT_S = 300.0
"""For a process to import Ray: a second, and a hundred where the machine or its disk is busy."""

ANSWER_TIMEOUT_S = 20.0
"""For a head to say who it is: a tenth of a second, where nothing is wrong."""

MAX_REASON_CHARS = 500
AUTH_VARIABLES = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
HEAD = "on the head, ray status shows whether it runs; its port is 6379 unless ray start named another"

ASK = """
import sys
try:
    from ray._private.services import canonicalize_bootstrap_address_or_die
    from ray._raylet import GcsClient
except ImportError:  # not all versions of Ray have them: it will say itself what it finds
    sys.exit()
print("asking", flush=True)
GcsClient(address=canonicalize_bootstrap_address_or_die(sys.argv[1]))
"""


def check_address(address: str) -> None:
    """Raise ConfigError where an address is not a head's, or nothing listens there. Blocks."""
    if address == AUTO:
        return
    if "://" in address:
        raise ConfigError(
            f"Ray address {address}: this is not a head's HOST:PORT. From outside of a cluster: ray job "
            f"submit --address http://HOST:8265 --working-dir . -- python -m runner ..."
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"Ray address {address}: write HOST:PORT of the head, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"Ray address {address}: nothing answers there ({error}); correct the address ({HEAD})"
        ) from error


def ask_head(address: str) -> None:
    """Raise ConfigError where no head answers, or it refuses this process's token. Blocks.

    Another process asks: Ray ends the one in which no token is found, and writes to its standard error.
    """
    command = [sys.executable, "-P", "-c", ASK, address]
    asking = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    assert asking.stdout is not None
    with asking:
        try:
            # Its first word, or its end: how long an import takes says nothing of the head.
            select.select([asking.stdout], [], [], IMPORT_TIMEOUT_S)
            _, errors = asking.communicate(timeout=ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise ConfigError(
                f"Ray address {address}: no head of Ray has answered there within {ANSWER_TIMEOUT_S:g} s, "
                f"though the port is open or `auto` named it; correct the address ({HEAD}; 8265 is for ray "
                f"job submit)"
            ) from error
        finally:
            asking.kill()
    if asking.returncode:
        last = (errors.strip().splitlines() or [f"exit code {asking.returncode}"])[-1]
        reason = next((line for line in errors.splitlines() if is_about_tokens(line)), last)
        raise ConfigError(describe_refusal(address, reason))


def is_about_tokens(text: str) -> bool:
    """Return whether an error of Ray's is about authentication. Pure."""
    return "uthentication" in text or "InvalidAuthToken" in text


def describe_refusal(address: str, reason: str) -> str:
    """Return what to say of what kept Ray from connecting, and what to do. Pure."""
    text = " ".join(reason.split())
    short = text[:MAX_REASON_CHARS]
    if "ersion mismatch" in text:
        return (
            f"Ray address {address}: {short}; install the cluster's versions of Ray and Python here, or run "
            f"there: ray job submit"
        )
    if "find an authentication token" in text or "no authentication token" in text:
        return (
            f"Ray address {address}: RAY_AUTH_MODE is token, and there is no token here; set RAY_AUTH_TOKEN, "
            f"or RAY_AUTH_TOKEN_PATH, as where ray start ran"
        )
    if is_about_tokens(text):
        return (
            f"Ray address {address}: it refused this process's token, or the lack of one; set "
            f"{AUTH_VARIABLES} here as where ray start ran"
        )
    if address == LOCAL:
        return (
            f"no Ray could be started on this machine: {short}; mend that, or go without (engines.kind: "
            f"local, cluster.kind: none)"
        )
    return f"Ray address {address}: no connection ({short}); correct the address ({HEAD})"
