"""Both kernels under Jupyter's own clients, over sockets that were bound before the kernel began."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from jupyter_client import AsyncKernelClient, BlockingKernelClient
from jupyter_client.session import Session

from tests.sandbox_pool.inside.kernel_process import KernelServer

pytestmark = pytest.mark.kernel
KEY = "a key that only both ends know"


@pytest.fixture(name="kind", scope="module", params=["lean", "ipykernel"])
def _kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(name="server", scope="module")
def _server(kind: str) -> Iterator[KernelServer]:
    server = KernelServer(["matplotlib.pyplot"] if kind == "lean" else [], kind)
    yield server
    server.close()


class Listening:
    """A kernel and where it listens."""

    def __init__(self, server: KernelServer, work: Path, folder: str) -> None:
        self.kernel, self.info = server.start_listening(work, folder, KEY)


@pytest.fixture(name="listening")
def _listening(server: KernelServer, tmp_path: Path) -> Iterator[Listening]:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        listening = Listening(server, tmp_path, folder)
        yield listening
        listening.kernel.kill()


@pytest.fixture(name="client")
def _client(listening: Listening) -> Iterator[BlockingKernelClient]:
    client = BlockingKernelClient()
    client.load_connection_info(listening.info)
    client.start_channels()
    client.wait_for_ready(timeout=20)
    yield client
    client.stop_channels()
    client.context.destroy(linger=0)


def execute(client: BlockingKernelClient, code: str, **options: Any) -> tuple[dict[str, Any], list[Any]]:
    """Run a cell; return the reply's content and (type, text) of what it showed."""
    shown: list[Any] = []

    def see(message: dict[str, Any]) -> None:
        content = message["content"]
        text = content.get("text") or content.get("data", {}).get("text/plain") or content.get("ename")
        if message["msg_type"] not in ("status", "execute_input"):
            shown.append((message["msg_type"], text))

    reply = client.execute_interactive(code, timeout=20, output_hook=see, **options)
    return reply["content"], shown


def test_cells(client: BlockingKernelClient) -> None:
    """Output, results and errors come in order; state stays."""
    reply, shown = execute(
        client, "import os, sys\nprint('a')\nprint('b', file=sys.stderr)\ndisplay(1)\nkept = 2\nkept"
    )
    assert shown == [("stream", "a\n"), ("stream", "b\n"), ("display_data", "1"), ("execute_result", "2")]
    assert (reply["status"], reply["execution_count"]) == ("ok", 1)
    reply, shown = execute(client, "1/0")
    assert (reply["ename"], shown) == ("ZeroDivisionError", [("error", "ZeroDivisionError")])
    assert execute(client, "await __import__('asyncio').sleep(0.01, kept)")[1] == [("execute_result", "2")]


def test_output_that_bypasses_python(client: BlockingKernelClient, kind: str) -> None:
    """What commands and C code write is shown; by our kernel where it belongs.

    ipykernel reads it in a thread of its own, so that a later print may overtake it.
    """
    _, shown = execute(
        client, "import os\nprint('a'); _ = os.system('echo b'); print('c'); _ = os.write(1, b'd\\n')"
    )
    lines = "".join(text for _, text in shown).splitlines()
    if kind == "lean":
        assert lines == ["a", "b", "c", "d"]
    assert sorted(lines) == ["a", "b", "c", "d"]
    assert lines.index("a") < lines.index("c")
    assert lines.index("b") < lines.index("d")


def test_figure(client: BlockingKernelClient) -> None:
    """A figure is displayed at the end of its cell."""
    _, shown = execute(client, "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])")
    assert shown == [("display_data", "<Figure size 640x480 with 1 Axes>")]


def test_other_requests(client: BlockingKernelClient, kind: str) -> None:
    """Completion, help, history and the rest are answered."""

    def ask(msg_id: str) -> Any:
        while (message := client.get_shell_msg(timeout=20))["parent_header"]["msg_id"] != msg_id:
            pass
        return message["content"]

    assert ask(client.is_complete("for x in y:"))["status"] == "incomplete"
    assert ask(client.complete("prin"))["matches"] == ["print"]
    assert ask(client.inspect("print"))["found"]
    assert ask(client.history())["status"] == "ok"
    assert ask(client.comm_info())["comms"] == {}
    assert ask(client.kernel_info())["protocol_version"].startswith("5.")
    assert client.hb_channel.is_beating()


def test_input(client: BlockingKernelClient) -> None:
    """input() is refused where the client says so, and else asks its user."""
    reply, _ = execute(client, "input()", allow_stdin=False)
    assert reply["ename"] == "StdinNotImplementedError"
    _, shown = execute(
        client,
        "input('name? ')",
        allow_stdin=True,
        stdin_hook=lambda message: client.input(message["content"]["prompt"] + "me"),
    )
    assert shown == [("execute_result", "'name? me'")]


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time; time.sleep(30)", "import asyncio; await asyncio.sleep(30)"]
)
def test_interrupt_by_init(listening: Listening, client: BlockingKernelClient, code: str) -> None:
    """What init signals ends the cell; what others signal does not."""
    timer = threading.Timer(0.3, listening.kernel.interrupt)
    early = threading.Timer(0.1, lambda: listening.kernel.interrupt(announced=False))
    began_at = time.monotonic()
    early.start()
    timer.start()
    reply, _ = execute(client, code)
    assert reply["ename"] in ("KeyboardInterrupt", "CancelledError")
    assert 0.25 < time.monotonic() - began_at < 10
    early.join()
    timer.join()
    assert execute(client, "1")[1] == [("execute_result", "1")]


def test_interrupt_by_message(client: BlockingKernelClient, kind: str) -> None:
    """A client that sends interrupt_request on control is heard while the cell runs, by the lean kernel."""
    if kind == "ipykernel":
        pytest.skip("its own signal handler asks for init's word: clients get interrupt_mode signal")
    msg_id = client.execute("print('on', flush=True)\nwhile True: pass")
    wait_for(client.get_iopub_msg, lambda m: m["msg_type"] == "stream")
    client.control_channel.send(client.session.msg("interrupt_request", {}))
    reply = wait_for(client.get_shell_msg, lambda m: m["parent_header"]["msg_id"] == msg_id)
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert client.get_control_msg(timeout=10)["content"] == {"status": "ok"}


def wait_for(get: Callable[..., Any], is_it: Callable[[Any], bool]) -> Any:
    while not is_it(message := get(timeout=20)):
        pass
    return message


def test_shutdown(listening: Listening, client: BlockingKernelClient) -> None:
    """shutdown_request is answered, and the kernel is gone."""
    reply = client.shutdown(restart=True, reply=True, timeout=20)
    assert reply["content"] == {"status": "ok", "restart": True}
    listening.kernel.wait_for_end()


def test_end_of_the_channel_ends_the_kernel(listening: Listening) -> None:
    """When the manager hangs up the kernel ends, whatever its cell does."""
    client = BlockingKernelClient()
    client.load_connection_info(listening.info)
    client.start_channels()
    client.wait_for_ready(timeout=20)
    client.execute("import time\nwhile True: time.sleep(1)")
    wait_for(client.get_iopub_msg, lambda m: m["msg_type"] == "execute_input")
    assert listening.kernel.close() == 0
    client.stop_channels()
    client.context.destroy(linger=0)


def test_unsigned_messages_are_ignored(listening: Listening, client: BlockingKernelClient) -> None:
    """A request signed with another key is not run; nor does garbage end the kernel."""
    context: zmq.Context[Any] = zmq.Context()
    intruder = context.socket(zmq.DEALER)
    intruder.connect(f"{listening.info['transport']}://{listening.info['ip']}-1")
    session = Session(key=b"another")
    session.send(intruder, "execute_request", {"code": "hacked = 1", "silent": False})
    intruder.send_multipart([b"garbage"])
    intruder.send_multipart([b"<IDS|MSG>", b"", b"{", b"", b"", b""])
    _, shown = execute(client, "'hacked' in globals()")
    assert ("execute_result", "False") in shown  # beside it, what ipykernel says of the garbage
    context.destroy(linger=0)


def test_nothing_is_lost_under_back_pressure(client: BlockingKernelClient) -> None:
    """5000 displays to a client that does not read for a while all arrive, and so does idle."""
    msg_id = client.execute("for n in range(5000): display(n)")
    time.sleep(1.5)
    n_seen = 0
    while True:
        message = client.get_iopub_msg(timeout=20)
        if message["parent_header"]["msg_id"] == msg_id:
            n_seen += message["msg_type"] == "display_data"
            if message["content"].get("execution_state") == "idle":
                break
    assert n_seen == 5000


async def test_async_client(listening: Listening) -> None:
    """AsyncKernelClient runs cells too."""
    client = AsyncKernelClient()
    client.load_connection_info(listening.info)
    client.start_channels()
    await client.wait_for_ready(timeout=20)
    reply = await client.execute_interactive("print(1)", timeout=20, output_hook=lambda _: None)
    assert reply["content"]["status"] == "ok"
    client.stop_channels()
    client.context.destroy(linger=0)


async def test_notebook(listening: Listening) -> None:
    """Nbclient executes a notebook."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: make test")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: make test")
    v4 = nbformat.v4
    notebook = v4.new_notebook(
        cells=[
            v4.new_code_cell("x = 20\nprint('hello')"),
            v4.new_markdown_cell("text"),
            v4.new_code_cell("x + 22"),
        ]
    )
    client = AsyncKernelClient()
    client.load_connection_info(listening.info)
    runner = nbclient.NotebookClient(notebook, timeout=20)
    runner.km = Manager()
    runner.kc = client
    client.start_channels()
    await client.wait_for_ready(timeout=20)
    for index in (0, 2):
        await runner.async_execute_cell(notebook.cells[index], index)
    assert notebook.cells[0].outputs[0].text == "hello\n"
    assert notebook.cells[2].outputs[0].data["text/plain"] == "42"
    client.stop_channels()
    client.context.destroy(linger=0)


class Manager:
    """As much of a kernel manager as nbclient asks while cells run."""

    async def is_alive(self) -> bool:
        return True


def test_idle_kernel(listening: Listening, kind: str) -> None:
    """An idle lean kernel has few threads and takes no time."""
    if kind == "ipykernel":
        pytest.skip("it has its own")
    before_s = cpu_s(listening.kernel.pid)
    time.sleep(0.5)
    assert cpu_s(listening.kernel.pid) - before_s < 0.05
    assert (
        len(list(Path(f"/proc/{listening.kernel.pid}/task").iterdir())) <= 7
    )  # ours, two, and zmq's two pairs


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_failure_stops_what_waits_behind_it(client: BlockingKernelClient) -> None:
    """Cells that were sent before one failed are not run, unless it was to stop nothing; later ones are."""
    code = "import time; time.sleep(0.5); 1/0"
    sent = [client.execute(code, stop_on_error=True), client.execute("a = 1"), client.execute("a = 2")]
    assert [client.get_shell_msg(timeout=20)["content"]["status"] for _ in sent] == [
        "error",
        "aborted",
        "aborted",
    ]
    assert execute(client, "'a' in globals()")[1] == [("execute_result", "False")]
    sent = [client.execute(code, stop_on_error=False), client.execute("a = 1")]
    assert [client.get_shell_msg(timeout=20)["content"]["status"] for _ in sent] == ["error", "ok"]


def test_a_line_is_one_output(client: BlockingKernelClient) -> None:
    """What one print writes comes as one message."""
    assert execute(client, r"print('one\ntwo')")[1] == [("stream", "one\ntwo\n")]
