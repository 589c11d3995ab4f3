"""One run of a benchmark: load it, check everything, open the run directory, drive it to the end."""

from runner.batch.driver import Shared
from runner.batch.prepared import Batch, prepare
from runner.batch.run import run_batch
from runner.batch.settings import sandbox_settings
from runner.batch.summary import RunSummary
from runner.batch.watching import Watching

__all__ = ["Batch", "RunSummary", "Shared", "Watching", "prepare", "run_batch", "sandbox_settings"]
