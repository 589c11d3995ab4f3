"""Fold the messages of one cell into an Observation. Pure.

The messages come from a process that runs a model's code. Any of them may be forged, missing,
repeated, out of order or of the wrong shape: folding never raises, and it holds no more memory than
the limits allow, whatever comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from sandbox_pool.clip import Clipped, Piece, clip, to_bytes
from sandbox_pool.content import as_json, display_id, limits_seen, picture_bytes, printable, without_colours
from sandbox_pool.observation import Display, Error, Observation, Output, Result, Status, Stream
from sandbox_pool.wire import BadMessage, Message

_OVERHEAD_BYTES = 512
"""What a message costs the output budget beside its content, so that empty ones are bounded too."""

StreamName = Literal["stdout", "stderr"]
_MAX_TRACEBACK_BYTES = 16 * 1024
_MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """How much of a cell's output is taken, and how much of that is kept; see PoolConfig."""

    max_output_bytes: int = 16 * 1024 * 1024
    max_text_bytes: int = 64 * 1024
    max_images: int = 20
    max_image_bytes: int = 5 * 1024 * 1024


@dataclass(slots=True)
class _Rich:
    """A result or display."""

    kind: type[Result] | type[Display]
    data: dict[str, str | bytes]
    """Shared by all displays with the same id: an update replaces what is in it."""


class Cell:
    """What is known of one request: add messages, ask whether it is done, take the observation."""

    def __init__(self, msg_id: str, limits: OutputLimits) -> None:
        self._msg_id = msg_id
        self._limits = limits
        self._outputs: list[Piece | _Rich | Error] = []
        self._streams: dict[str, Clipped] = {}
        self._displays: dict[str, dict[str, str | bytes]] = {}
        self._rich_bytes_left = 4 * limits.max_text_bytes
        self._n_images = 0
        self._clear_on_next = False
        self._is_cut = False
        self._status: Status | None = None
        self._limits_hit: tuple[str, ...] = ()
        self.has_reply = False
        """Whether the shell channel has answered."""

        self.is_idle = False
        """Whether iopub has said that all output is there."""

        self.has_begun = False
        """Whether the kernel has said that it works on the cell."""

        self.is_exiting = False
        """Whether the kernel has said that it ends after this cell, as `exit()` asks it to."""

        self.n_malformed = 0
        """Messages that claimed to be this cell's and could not be read."""

        self.n_output_bytes = 0
        self.n_budget_bytes = 0

    @property
    def is_over_budget(self) -> bool:
        """Whether the cell has written more than max_output_bytes; nothing is kept from then on."""
        return self.n_budget_bytes > self._limits.max_output_bytes

    def add(self, source: Literal["shell", "iopub"], message: Message) -> bool:
        """Fold one message in; return whether it was this cell's. Never raises."""
        if message.parent_id != self._msg_id:
            return False
        try:
            if source == "shell":
                self._add_reply(message)
            else:
                self._add_output(message)
        except BadMessage:
            self.n_malformed += 1
        return True

    def add_text(self, name: StreamName, data: bytes) -> None:
        """Fold in what was written to stdout or stderr while this cell was running. Never raises."""
        self.n_budget_bytes += len(data)
        if self.is_over_budget:
            self.n_output_bytes += len(data)
            return
        if self._clear_on_next:
            self._clear()
        self._write(name, data)

    def add_skipped(self, n_bytes: int) -> None:
        """Count output that was too long to be taken at all."""
        self.n_budget_bytes += n_bytes
        self.n_output_bytes += n_bytes

    def observation(
        self,
        status: Status | None = None,
        *,
        duration_s: float,
        kernel_alive: bool,
        limits_hit: tuple[str, ...] = (),
        peak_memory_bytes: int | None = None,
    ) -> Observation:
        """Return what is known so far.

        Args:
            status: how the cell ended if not by itself.
            duration_s: wall time of the cell.
            kernel_alive: whether another cell can be executed.
            limits_hit: limits that the system says were hit, beside those that an exception speaks of.
            peak_memory_bytes: most memory that the sandbox held so far, if the system counts it.
        """
        for stream in self._streams.values():
            stream.trim()
        outputs = self._build()
        error = next((output for output in reversed(outputs) if isinstance(output, Error)), None)
        own = Status.ERROR if self._status is Status.ERROR or error is not None else Status.OK
        seen = limits_seen(error.ename, error.evalue) if error else ()
        n_missing = sum(stream.n_missing_bytes for stream in self._streams.values())
        return Observation(
            status=status or own,
            outputs=outputs,
            limits_hit=tuple(dict.fromkeys(self._limits_hit + seen + limits_hit)),
            truncated=self._is_cut or n_missing > 0 or self.is_over_budget,
            duration_s=duration_s,
            n_output_bytes=self.n_output_bytes,
            peak_memory_bytes=peak_memory_bytes,
            kernel_alive=kernel_alive,
        )

    def _add_reply(self, message: Message) -> None:
        if message.type != "execute_reply":
            return
        self.has_reply = True
        content = message.content()
        if content.get("status") != "ok":
            self._status = Status.ERROR
            seen = limits_seen(printable(content.get("ename")), printable(content.get("evalue")))
            self._limits_hit = seen
        payloads = content.get("payload")
        self.is_exiting = isinstance(payloads, list) and any(
            isinstance(payload, dict) and payload.get("source") == "ask_exit" for payload in payloads
        )

    def _add_output(self, message: Message) -> None:
        if message.type == "status":
            self.has_begun = True
            self.is_idle |= message.content().get("execution_state") == "idle"
            return
        if message.type == "execute_input":
            return
        self.n_budget_bytes += len(message.raw_content) + _OVERHEAD_BYTES
        if self.is_over_budget:
            self.n_output_bytes += len(message.raw_content)
            return
        content = message.content()
        if message.type == "clear_output":
            if content.get("wait"):
                self._clear_on_next = True
            else:
                self._clear()
            return
        if self._clear_on_next:
            self._clear()
        self._take(message.type, content)

    def _take(self, kind: str, content: Mapping[str, Any]) -> None:
        if kind == "stream":
            name: StreamName = "stderr" if content.get("name") == "stderr" else "stdout"
            self._write(name, to_bytes(printable(content.get("text", ""))))
        elif kind == "execute_result":
            self._outputs.append(_Rich(Result, self._bundle(content)))
        elif kind == "display_data":
            self._outputs.append(_Rich(Display, self._display(content)))
        elif kind == "update_display_data":
            if display_id(content) in self._displays:
                self._display(content)
        elif kind == "error":
            self._outputs.append(self._error(content))

    def _clear(self) -> None:
        self._clear_on_next = False
        self._outputs.clear()
        self._streams.clear()
        self._displays.clear()

    def _write(self, name: StreamName, data: bytes) -> None:
        self.n_output_bytes += len(data)
        stream = self._streams.setdefault(name, Clipped(self._limits.max_text_bytes))
        last = self._outputs[-1] if self._outputs else None
        if not (isinstance(last, Piece) and last.name == name):
            last = Piece(name)
            self._outputs.append(last)
            self.n_budget_bytes += _OVERHEAD_BYTES
        piece = stream.add(data, last)
        if piece is not last:
            self._outputs.append(piece)

    def _bundle(self, content: Mapping[str, Any]) -> dict[str, str | bytes]:
        data = content.get("data")
        kept: dict[str, str | bytes] = {}
        left_out = []
        for mime, value in data.items() if isinstance(data, dict) else ():
            name = printable(mime, _MAX_NAME_CHARS)
            if name.startswith("image/"):
                picture = picture_bytes(name, value)
                self.n_output_bytes += len(picture)
                if self._has_room_for(picture):
                    kept[name] = picture
                else:
                    left_out.append(f"[{name} of {len(picture)} bytes not kept]")
            else:
                kept[name] = self._rich_text(value)
        if left_out:
            self._is_cut = True
            text = kept.get("text/plain", "")
            kept["text/plain"] = "\n".join([cast("str", text), *left_out]).lstrip("\n")
        return kept

    def _display(self, content: Mapping[str, Any]) -> dict[str, str | bytes]:
        """Return what a display shows; with an id, what all displays with this id show from now on."""
        bundle = self._bundle(content)
        name = display_id(content)
        if name is None:
            return bundle
        shown = self._displays.setdefault(name, bundle)
        if shown is not bundle:
            shown.clear()
            shown.update(bundle)
        return shown

    def _has_room_for(self, picture: bytes) -> bool:
        self._n_images += 1
        return len(picture) <= self._limits.max_image_bytes and self._n_images <= self._limits.max_images

    def _rich_text(self, value: object) -> str:
        text = printable(value) if isinstance(value, str) else as_json(value)
        size = len(text.encode())
        self.n_output_bytes += size
        text, is_cut = clip(text, min(self._limits.max_text_bytes, max(self._rich_bytes_left, 0)))
        self._rich_bytes_left -= min(size, len(text))
        self._is_cut |= is_cut
        return text

    def _error(self, content: Mapping[str, Any]) -> Error:
        lines = content.get("traceback")
        whole = "\n".join(map(printable, lines)) if isinstance(lines, list) else printable(lines or "")
        traceback, cut_traceback = clip(without_colours(whole), _MAX_TRACEBACK_BYTES)
        evalue, cut_value = clip(without_colours(printable(content.get("evalue", ""))), _MAX_TRACEBACK_BYTES)
        self._is_cut |= cut_traceback or cut_value
        self.n_output_bytes += len(whole.encode())
        return Error(printable(content.get("ename", ""), _MAX_NAME_CHARS), evalue, traceback)

    def _build(self) -> tuple[Output, ...]:
        outputs: list[Output] = []
        for item in self._outputs:
            if isinstance(item, Piece):
                text = item.text()
                last = outputs[-1] if outputs else None
                if isinstance(last, Stream) and last.name == item.name:
                    outputs[-1] = Stream(last.name, last.text + text)
                elif text:
                    outputs.append(Stream(cast("StreamName", item.name), text))
            elif isinstance(item, _Rich):
                outputs.append(item.kind(item.data))
            else:
                outputs.append(item)
        return tuple(outputs)
