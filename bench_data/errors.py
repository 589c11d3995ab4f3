"""What can go wrong with a benchmark.

BenchDataError
├── SampleError       one row is wrong: names the row and the key
├── MissingDataError  a data root, a file or a folder is not there
└── UnknownBenchmark  no benchmark of that name
"""

from __future__ import annotations


class BenchDataError(Exception):
    """Base of all errors of bench_data; its message is fit to show to a user."""


class SampleError(BenchDataError, ValueError):
    """A row of a benchmark is not usable as it stands."""


class MissingDataError(BenchDataError, FileNotFoundError):
    """Data that the benchmark needs is not on this machine."""

    def __str__(self) -> str:
        """Show the message alone, as OSError would not."""
        return str(self.args[0]) if self.args else ""


class UnknownBenchmark(BenchDataError, KeyError):  # noqa: N818 - named for the state, as in anyio
    """No benchmark has that name."""

    def __str__(self) -> str:
        """Show the message alone, as KeyError would quote it."""
        return str(self.args[0]) if self.args else ""
