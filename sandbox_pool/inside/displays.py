"""Where IPython hands over what a cell shows: the value of its last expression, and what it displays."""

# IPython's classes are typed in part, and its traits not at all
# mypy: disable-error-code="no-untyped-call, union-attr, override, attr-defined, arg-type"

from __future__ import annotations

import sys
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher

from sandbox_pool.inside.front import OutStream


class FrontDisplayHook(DisplayHook):
    """Publishes the value of a cell's last expression."""

    message: dict[str, Any] | None = None
    """The result that is being formatted."""

    def start_displayhook(self) -> None:
        """Begin a message."""
        self.message = {"data": {}, "metadata": {}}
        self._is_active = True

    def write_output_prompt(self) -> None:
        """Number the message."""
        assert self.message is not None
        self.message["execution_count"] = self.prompt_count

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Fill the message."""
        assert self.message is not None
        self.message.update(data=format_dict, metadata=md_dict or {})

    def log_output(self, format_dict: dict[str, Any]) -> None:
        """Remember nothing: what was shown is not needed again, and would only cost memory."""

    def finish_displayhook(self) -> None:
        """Send the message; it can wait for the reply, which most often comes next."""
        message, self.message = self.message, None
        self._is_active = False
        if message and message["data"]:
            flush_streams()
            self.shell.front.publish("execute_result", message, is_urgent=False)


class FrontDisplayPublisher(DisplayPublisher):
    """Publishes what a cell displays."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        """Send a display, or new contents for all displays with its id."""
        self._validate_data(data, metadata)
        flush_streams()
        content = {"data": data, "metadata": metadata or {}, "transient": transient or {}}
        self.shell.front.publish("update_display_data" if update else "display_data", content)

    def clear_output(self, wait: bool = False) -> None:  # noqa: FBT001, FBT002 - IPython's signature
        """Say that what was displayed is to go, at once or when the next output comes."""
        flush_streams()
        self.shell.front.publish("clear_output", {"wait": wait})


def flush_streams(*, with_ours: bool = False) -> None:
    """Flush what the cell has put in place of sys.stdout and sys.stderr; ours keep the order anyway."""
    for name in ("stdout", "stderr"):
        try:
            stream = getattr(sys, name)
            if with_ours or not isinstance(stream, OutStream):
                stream.flush()
        except Exception:
            continue  # a broken one must not matter
