"""Forged messages: the code speaks on its kernel's channel, as itself or as nonsense.

It runs in the kernel's own process, so that it can say whatever the kernel can; the manager must take
all of it as claims about that kernel alone.
"""

from __future__ import annotations

from sandbox_pool import Observation, Sandbox, Status
from tests.sandbox_pool.hostile.case import ANYHOW, Case, ends, ok

LEAN = r"""
import json, os, socket, stat, struct, time

def sockets():
    found = []
    for fd in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): found.append(socket.socket(fileno=os.dup(fd)))
        except OSError: pass
    return [s for s in found if s.family == socket.AF_UNIX and s.type == socket.SOCK_STREAM]

channel = sockets()[0]
msg_id = get_ipython().kernel.get_parent('shell')["header"]["msg_id"]

def frame(kind, payload): return kind + struct.pack(">I", len(payload)) + payload
def message(kind, type, content, parent=None):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return frame(kind, b"\0".join([type.encode(), (parent or msg_id).encode(), body]))
def say(*frames): channel.sendall(b"".join(frames))
IDLE = {"execution_state": "idle"}
REPLY = {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
"""
"""What each cell of a lean kernel begins with: the socket, the id of its own request, and how to speak."""

IPYKERNEL = r"""
import time, uuid
kernel = get_ipython().kernel
parent = kernel.get_parent("shell")
msg_id = parent["header"]["msg_id"]
ident = kernel._shell_parent_ident.get()
IDLE = {"execution_state": "idle"}
REPLY = {"status": "ok", "execution_count": 1, "payload": [], "user_expressions": {}}
def say_iopub(type, content, parent=parent): kernel.session.send(kernel.iopub_socket, type, content, parent, b"x")
def say_shell(type, content, parent=parent): kernel.session.send(kernel.shell_stream, type, content, parent, ident)
"""


async def _next_is_sound(sandbox: Sandbox, seen: Observation) -> None:
    """If the kernel is alive, its next cell is its own: nothing that was forged before counts for it."""
    if seen.kernel_alive:
        after = await sandbox.execute("6 * 7", timeout_s=5)
        assert after.result == "42" or not after.kernel_alive, after


def _lean(name: str, cell: str, end: object = ANYHOW, **more: object) -> Case:
    more.setdefault("stays_usable", False)
    more.setdefault("timeout_s", 1.0)
    return Case(name, LEAN + cell, end, kernel="lean", **more)  # type: ignore[arg-type]


def _ipykernel(name: str, cell: str, end: object = ANYHOW, **more: object) -> Case:
    more.setdefault("stays_usable", False)
    more.setdefault("timeout_s", 1.0)
    return Case(name, IPYKERNEL + cell, end, kernel="ipykernel", **more)  # type: ignore[arg-type]


_BROKEN = ends(Status.PROTOCOL, alive=False)

_ODD = r"""
for content in (
    b"", b"nonsense", b"5", b"null", b"[]", b'"x"', b'{"text": 5}', b'{"name": {}, "text": [1]}', b"\xff\xfe", b'{"text": "\\ud800"}',
    b'{"data": 5}', b'{"data": [1], "metadata": 7}', b'{"data": {"image/png": 5, "text/plain": {"a": 1}}}', b'{"transient": 5, "data": {}}',
    b'{"data": {"text/plain": "x"}, "transient": {"display_id": [1]}}', b'{"ename": 5, "evalue": {}, "traceback": 7}',
    b'{"ename": "E", "evalue": "v", "traceback": [1, null]}', b'{"execution_state": {"a": 1}}', b'{"status": 5, "payload": 7}',
    b'{"x": NaN, "y": Infinity, "z": 1e999}', b'{"text": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"a":' * 50_000,
    b'{"text": "a", "text": "b"}', b'{"wait": "x"}', b'{"status": "error", "ename": [], "evalue": 5}',
):
    for type in ("stream", "execute_result", "display_data", "update_display_data", "error", "clear_output", "status", "@SHELL@", "", "x" * 9999):
        SAY
"""

CASES = (
    _lean(
        "forged-end",
        "say(message(b'i', 'stream', {'name': 'stdout', 'text': 'forged'}), message(b's', 'execute_reply', REPLY), message(b'i', 'status', IDLE))\ntime.sleep(0.3)",
        ends(Status.OK, Status.PROTOCOL, stdout="forged.*"),
        check=_next_is_sound,
    ),
    _lean(
        "forged-end-then-forever",
        "say(message(b's', 'execute_reply', REPLY), message(b'i', 'status', IDLE))\nwhile True: pass",
        ends(Status.OK, Status.PROTOCOL),
    ),
    _lean(
        "forged-idle-only",
        "say(message(b'i', 'status', IDLE))\ntime.sleep(3)",
        ends(Status.PROTOCOL, Status.TIMEOUT),
        timeout_s=4,
    ),
    _lean(
        "forged-reply-only",
        "say(message(b's', 'execute_reply', REPLY))\ntime.sleep(3)",
        ends(Status.PROTOCOL, Status.TIMEOUT),
        timeout_s=4,
    ),
    _lean(
        "forged-exit",
        "say(message(b's', 'execute_reply', {**REPLY, 'payload': [{'source': 'ask_exit'}]}), message(b'i', 'status', IDLE))",
        ANYHOW,
    ),
    _lean(
        "odd-payloads",
        "get_ipython().payload_manager.write_payload({'source': 'set_next_input', 'text': 5})\nget_ipython().payload_manager._payload += [5, None, {'source': []}]",
        ends(Status.OK, Status.PROTOCOL, Status.ERROR),
    ),
    _lean("garbage", "channel.sendall(b'\\xff' * 64)\ntime.sleep(1)", _BROKEN),
    _lean(
        "kind-of-the-manager",
        "say(frame(b'x', b'execute_request\\0' + b'0' * 32 + b'\\0{}'))\ntime.sleep(1)",
        _BROKEN,
    ),
    _lean(
        "message-without-parts",
        "say(frame(b'i', b'no zero bytes'))\ntime.sleep(0.1)",
        ends(Status.PROTOCOL, alive=False),
    ),
    _lean(
        "message-not-utf8",
        "say(frame(b'i', b'\\xff\\0\\xfe\\0{}'))\ntime.sleep(0.1)",
        ends(Status.PROTOCOL, alive=False),
    ),
    _lean(
        "truncated-frame",
        "channel.sendall(b'i' + struct.pack('>I', 1000) + b'short')",
        ends(Status.PROTOCOL, Status.TIMEOUT),
        timeout_s=0.3,
    ),
    _lean(
        "endless-frame",
        "channel.sendall(b'i\\xff\\xff\\xff\\xff')\nwhile True: channel.sendall(bytes(1 << 20))",
        ends(Status.PROTOCOL, Status.OUTPUT_LIMIT, Status.TIMEOUT),
        timeout_s=3,
    ),
    _lean(
        "endless-text",
        "channel.sendall(b'o\\xff\\xff\\xff\\xff')\nwhile True: channel.sendall(bytes(1 << 20))",
        ends(Status.PROTOCOL, Status.OUTPUT_LIMIT, Status.TIMEOUT),
        timeout_s=3,
    ),
    _lean(
        "frame-byte-by-byte",
        "for byte in message(b'i', 'stream', {'name': 'stdout', 'text': 'x' * 20000}): channel.sendall(bytes([byte]))",
        ends(Status.OK, alive=True, stdout="x{20000}"),
    ),
    _lean(
        "empty-frames",
        "while True: say(*[frame(b'o', b'')] * 10_000)",
        ends(Status.OUTPUT_LIMIT, Status.TIMEOUT, Status.PROTOCOL),
        timeout_s=0.3,
    ),
    _lean(
        "ready-again",
        "while True: say(*[frame(b'r', b'')] * 10_000)",
        ends(Status.OUTPUT_LIMIT, Status.TIMEOUT, Status.PROTOCOL),
        timeout_s=0.3,
    ),
    _lean(
        "status-storm",
        "while True: say(*[message(b'i', 'status', {'execution_state': 'busy'})] * 1000)",
        ends(Status.OUTPUT_LIMIT, Status.TIMEOUT, Status.PROTOCOL),
        timeout_s=0.3,
    ),
    _lean(
        "messages-of-no-cell",
        "while True: say(*[message(b'i', 'stream', {'name': 'stdout', 'text': 'x' * 5000}, 'f' * 32)] * 100)",
        ends(Status.OUTPUT_LIMIT, Status.TIMEOUT, Status.PROTOCOL),
        timeout_s=0.3,
    ),
    _lean(
        "comm-flood",
        "say(*[message(b'i', 'comm_open', {'comm_id': str(n), 'target_name': 'x', 'data': {}}) for n in range(2000)])",
        ends(Status.OK, Status.OUTPUT_LIMIT),
    ),
    _lean(
        "input-request",
        "say(message(b'i', 'input_request', {'prompt': 'x', 'password': False}), message(b's', 'input_request', {'prompt': 'x'}))",
        ends(Status.OK, Status.PROTOCOL),
    ),
    _lean(
        "replies-of-other-kinds",
        "say(*[message(b's', t, REPLY) for t in ('seed_reply', 'kernel_info_reply', 'shutdown_reply', 'no_reply')])",
        ends(Status.OK, Status.PROTOCOL, alive=True),
        stays_usable=True,
    ),
    _lean(
        "wrong-types",
        _ODD.replace("@SHELL@", "comm_msg").replace("SAY", "say(message(b'i', type, content))"),
        ends(Status.OK, Status.ERROR, Status.PROTOCOL, Status.OUTPUT_LIMIT),
        timeout_s=8,
    ),
    _lean(
        "wrong-types-in-replies",
        _ODD.replace("@SHELL@", "execute_reply").replace("SAY", "say(message(b's', type, content))"),
        ANYHOW,
        timeout_s=8,
    ),
    _lean(
        "reply-to-the-next-cell",
        """
import threading, uuid
def guess():
    for n in range(3000):
        try: say(message(b's', 'execute_reply', REPLY, uuid.uuid4().hex), message(b'i', 'status', IDLE, uuid.uuid4().hex), message(b's', 'execute_reply', REPLY, ''), message(b'i', 'status', IDLE))
        except OSError: return
threading.Thread(target=guess, daemon=True).start(); time.sleep(0.05)
""",
        ends(Status.OK, Status.PROTOCOL),
        check=_next_is_sound,
    ),
    _lean(
        "replay",
        "for n in range(100): say(message(b'i', 'stream', {'name': 'stdout', 'text': 'old'}, old), message(b's', 'execute_reply', REPLY, old), message(b'i', 'status', IDLE, old))\nprint('new')",
        ends(Status.OK, alive=True, stdout="new\n"),
        before=(LEAN + "old = msg_id",),
    ),
    _lean(
        "write-side-shut",
        "channel.shutdown(socket.SHUT_WR)\ntime.sleep(0.05)",
        ends(Status.PROTOCOL, Status.DIED, Status.TIMEOUT),
    ),
    _lean(
        "channel-shut",
        "channel.shutdown(socket.SHUT_RDWR)\ntime.sleep(0.05)",
        ends(Status.PROTOCOL, Status.DIED, Status.TIMEOUT),
    ),
    _lean("channel-never-blocks", "channel.setblocking(False)\nprint('x' * 500_000)", ANYHOW),
    _lean(
        "descriptors-sent-to-the-manager",
        """
import array
fds = array.array("i", [os.open("/dev/null", os.O_RDONLY) for _ in range(30)])
for _ in range(20): time.sleep(0.01); channel.sendmsg([message(b'i', 'status', {'execution_state': 'busy'})], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
print('sent')
""",
        ends(Status.OK, Status.PROTOCOL),
    ),
    _lean(
        "requests-stolen",
        """
import threading
def steal():
    while channel.recv(65536): pass
channel.setblocking(True)
threading.Thread(target=steal, daemon=True).start()
""",
        ends(Status.OK, Status.PROTOCOL),
    ),
    _lean(
        "pipe-never-empty",
        "import subprocess\nsubprocess.Popen(['sh', '-c', 'while true; do echo x; sleep 0.001; done'])\nNone",
        ends(Status.OK, Status.TIMEOUT, Status.OUTPUT_LIMIT, Status.PROTOCOL),
        timeout_s=4,
    ),
    _ipykernel(
        "forged-end-zmq",
        "say_iopub('stream', {'name': 'stdout', 'text': 'forged'}); say_shell('execute_reply', REPLY); say_iopub('status', IDLE)\ntime.sleep(0.3)",
        ends(Status.OK, Status.PROTOCOL),
        check=_next_is_sound,
    ),
    _ipykernel(
        "forged-end-then-forever-zmq",
        "say_shell('execute_reply', REPLY); say_iopub('status', IDLE)\nwhile True: pass",
        ends(Status.OK, Status.PROTOCOL),
    ),
    _ipykernel(
        "bad-signature",
        "kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b'bad', b'{}', b'{}', b'{}', b'{}'])",
        _BROKEN,
    ),
    _ipykernel(
        "truncated-parts",
        "kernel.iopub_socket.send_multipart([b'x']); kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b''])",
        _BROKEN,
    ),
    _ipykernel(
        "signed-nonsense",
        """
s = kernel.session
for parts in ([b'', b'', b'', b''], [b'[]'] * 4, [b'5'] * 4, [b'\\xff'] * 4, [b'{"msg_id": 5}', b'{"msg_id": []}', b'{}', b'{}']):
    kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', s.sign(parts), *parts])
""",
        ends(Status.PROTOCOL, Status.OK),
    ),
    _ipykernel(
        "huge-message",
        "kernel.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b'y' * 40_000_000])\ntime.sleep(0.3)",
        ANYHOW,
    ),
    _ipykernel("many-parts", "kernel.iopub_socket.send_multipart([b'x'] * 20_000)\ntime.sleep(0.1)", _BROKEN),
    _ipykernel(
        "buffers",
        "kernel.session.send(kernel.iopub_socket, 'comm_msg', {}, parent, b'x', buffers=[b'z' * 1000] * 100)",
        ends(Status.OK, Status.PROTOCOL),
    ),
    _ipykernel(
        "wrong-types-zmq",
        _ODD.replace("@SHELL@", "comm_msg").replace(
            "SAY",
            "kernel.iopub_socket.send_multipart(kernel.session.serialize(kernel.session.msg(type, {}, parent), b'x')[:-1] + [content])",
        ),
        ANYHOW,
        timeout_s=8,
    ),
    _ipykernel(
        "reply-to-the-next-cell-zmq",
        "for n in range(300): say_shell('execute_reply', REPLY, {'header': {**parent['header'], 'msg_id': uuid.uuid4().hex}}); say_iopub('status', IDLE, {'header': {**parent['header'], 'msg_id': uuid.uuid4().hex}})",
        ends(Status.OK, Status.PROTOCOL),
        check=_next_is_sound,
    ),
    _ipykernel(
        "replay-zmq",
        "for n in range(50): say_shell('execute_reply', REPLY, old); say_iopub('status', IDLE, old); say_iopub('stream', {'name': 'stdout', 'text': 'old'}, old)\nprint('new')",
        ends(Status.OK, alive=True, stdout="new\n"),
        before=(IPYKERNEL + "old = parent",),
    ),
    _ipykernel(
        "comm-flood-zmq",
        "for n in range(3000): say_iopub('comm_open', {'comm_id': str(n), 'target_name': 'x', 'data': {}})",
        ends(Status.OK, Status.OUTPUT_LIMIT),
    ),
    _ipykernel(
        "input-request-zmq",
        "kernel.session.send(kernel.stdin_socket, 'input_request', {'prompt': 'x', 'password': False}, parent, ident)",
        ok(),
    ),
    _ipykernel(
        "welcome-flood",
        "for n in range(3000): say_iopub('iopub_welcome', {'subscription': ''}, {})",
        ends(Status.OK, Status.OUTPUT_LIMIT, Status.PROTOCOL),
    ),
    _ipykernel(
        "sockets-closed",
        "kernel.iopub_socket.close(); kernel.shell_stream.close()",
        ends(Status.TIMEOUT, Status.PROTOCOL, Status.DIED, Status.OK),
        timeout_s=1,
    ),
)
