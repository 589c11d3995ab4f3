"""What a person watches while a run goes on."""

from runner.progress.line import duration, status_line
from runner.progress.watch import Mode, RunConsole, watch

__all__ = ["Mode", "RunConsole", "duration", "status_line", "watch"]
