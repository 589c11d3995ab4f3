"""What a lean kernel answers to each request of the Jupyter protocol, whoever carries the messages.

https://jupyter-client.readthedocs.io/en/stable/messaging.html, version 5.4. Where it leaves a choice, the
answer is ipykernel's.
"""

# IPython's classes are typed in part, and its traits not at all
# mypy: disable-error-code="no-untyped-call, union-attr, override, attr-defined, arg-type"

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from IPython.core import release
from IPython.core.completer import provisionalcompleter, rectify_completions
from IPython.utils.tokenutil import token_at_cursor

from sandbox_pool.inside.displays import flush_streams
from sandbox_pool.inside.frames import ChannelClosed, encode_text
from sandbox_pool.inside.front import Front, Request
from sandbox_pool.inside.interrupts import Interrupts
from sandbox_pool.inside.libraries import reseed
from sandbox_pool.inside.shell import ZMQInteractiveShell, text_of

Content = dict[str, Any]


class Service:
    """Answers requests until one ends the kernel. For the main thread."""

    def __init__(self, shell: ZMQInteractiveShell, front: Front, interrupts: Interrupts) -> None:
        self._shell = shell
        self._front = front
        self._interrupts = interrupts
        self._is_over = False
        self._current: Request | None = None
        self._has_begun = False
        self._content: Content | None = None
        self._aborted: set[str] = set()
        """Requests that came before a cell failed that was to stop those behind it."""

        self._answers: Mapping[str, Callable[[Content], Content]] = {
            "execute_request": self._execute,
            "kernel_info_request": lambda _: kernel_info(),
            "is_complete_request": self._is_complete,
            "complete_request": self._complete,
            "inspect_request": self._inspect,
            "history_request": lambda _: {"status": "ok", "history": []},
            "comm_info_request": lambda _: {"status": "ok", "comms": {}},
            "connect_request": lambda _: {"status": "ok"},
            "interrupt_request": lambda _: {"status": "ok"},
            "shutdown_request": self._shut_down,
            "seed_request": self._seed,
        }

    def serve(self) -> None:
        """Answer requests until the manager hangs up or one ends the kernel.

        Signal handlers and threads of the code may raise in here at any time. That must neither end the
        kernel nor leave a request without its answer or run one twice, so each step can be taken up where it
        broke off.
        """
        while True:
            try:
                # with the loop inside: a signal is handled at jumps back, too
                while not (self._is_over and self._current is None):
                    self._step()
                return
            except ChannelClosed:
                return
            except BaseException:
                continue

    def _step(self) -> None:
        """Answer one request, or what is left to do of it. A process that the code forked ends here."""
        if self._current is None:
            request = self._front.receive()
            if request is None:
                raise ChannelClosed
            self._content, self._has_begun, self._current = None, False, request
        request = self._current
        self._front.accept(request)
        if not self._has_begun:
            self._front.begin(request)
            self._has_begun = True
            self._content = self._answer(request)
        content = self._content or {"status": "error", "ename": "TimeoutError", "evalue": "", "traceback": []}
        if self._front.is_child:
            flush_streams(with_ours=True)
            os._exit(0 if content["status"] == "ok" else 1)
        is_known = request.type in self._answers
        self._front.conclude(request.type[: -len("request")] + "reply" if is_known else "", content)
        self._current = None

    def _answer(self, request: Request) -> Content:
        """Return the reply to a request; what cannot be answered is an error."""
        try:
            if request.type == "execute_request" and request.msg_id in self._aborted:
                return {"status": "aborted"}
            answer = self._answers.get(request.type)
            return answer(request.content) if answer is not None else {"status": "ok"}
        except ChannelClosed:
            raise
        except BaseException as error:
            return {
                "status": "error",
                "ename": type(error).__name__,
                "evalue": text_of(error),
                "traceback": [],
            }

    # -- cells

    def _execute(self, content: Content) -> Content:
        shell = self._shell
        silent = bool(content.get("silent", False))
        code = encode_text(content["code"]).decode()  # a lone surrogate becomes the escape that means it
        result: Any = None
        try:
            self._interrupts.arm(content.get("mark"))
            shell.cell_loop.prepare(code)
            if self._front.wants_input and not silent:
                self._front.publish("execute_input", {"code": code, "execution_count": shell.execution_count})
            result = shell.run_request(
                code, silent=silent, store_history=bool(content.get("store_history", not silent))
            )
        except ChannelClosed:
            raise
        except BaseException as error:
            result = shell.failure(error)
        finally:
            self._interrupts.disarm()
        flush_streams()
        reply = self._outcome(result, content.get("user_expressions") or {})
        if reply["status"] == "error" and content.get("stop_on_error", True):
            self._aborted = {queued.msg_id for queued in self._front.queued()}
        return reply

    def _outcome(self, result: Any, expressions: dict[str, str]) -> Content:
        """Return the reply to a cell, as ipykernel makes it."""
        shell = self._shell
        reply: Content = {"status": "ok"}
        error = result.error_before_exec if result.error_before_exec is not None else result.error_in_exec
        if error is not None or shell.has_failed_display:
            reply = {
                "status": "error",
                "ename": type(error).__name__,
                "evalue": text_of(error),
                "traceback": shell.last_traceback or [],
            }
            if shell.last_traceback is None and isinstance(error, KeyboardInterrupt):
                # a second one came while the first was being shown
                self._front.publish("error", dict(reply, traceback=["KeyboardInterrupt"]), is_urgent=False)
        reply["execution_count"] = shell.execution_count - 1
        reply["user_expressions"] = shell.user_expressions(expressions) if reply["status"] == "ok" else {}
        reply["payload"] = shell.payload_manager.read_payload()
        shell.payload_manager.clear_payload()
        self._is_over = bool(shell.exit_now)
        return reply

    # -- everything else

    def _is_complete(self, content: Content) -> Content:
        status, indent = self._shell.input_transformer_manager.check_complete(content["code"])
        return (
            {"status": status, "indent": " " * (indent or 0)}
            if status == "incomplete"
            else {"status": status}
        )

    def _complete(self, content: Content) -> Content:
        code, position = content["code"], content.get("cursor_pos")
        position = len(code) if position is None else position
        with provisionalcompleter():
            found = list(rectify_completions(code, self._shell.Completer.completions(code, position)))
        types = [
            {"start": c.start, "end": c.end, "text": c.text, "type": c.type, "signature": c.signature}
            for c in found
        ]
        return {
            "status": "ok",
            "matches": [c.text for c in found],
            "cursor_start": found[0].start if found else position,
            "cursor_end": found[0].end if found else position,
            "metadata": {"_jupyter_types_experimental": types},
        }

    def _inspect(self, content: Content) -> Content:
        name = token_at_cursor(content["code"], content.get("cursor_pos") or 0)
        reply: Content = {"status": "ok", "found": True, "data": {}, "metadata": {}}
        try:
            reply["data"] = self._shell.object_inspect_mime(name, content.get("detail_level", 0))
        except KeyError:
            reply["found"] = False
        return reply

    def _shut_down(self, content: Content) -> Content:
        self._is_over = True
        return {"status": "ok", "restart": bool(content.get("restart", False))}

    def _seed(self, content: Content) -> Content:
        reseed(content["seed"])
        return {"status": "ok"}


def kernel_info() -> Content:
    """Return who answers."""
    version = sys.version_info
    return {
        "status": "ok",
        "protocol_version": "5.4",
        "implementation": "ipython",
        "implementation_version": release.version,
        "language_info": {
            "name": "python",
            "version": ".".join(map(str, version[:3])),
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": version[0]},
            "pygments_lexer": f"ipython{version[0]}",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "banner": f"Python {sys.version}",
        "help_links": [],
        "supported_features": [],
    }
