"""Our own benchmark: small tasks of six kinds that need no data, no network and no judge.

Every input is made from a seed when it is read. What a check expects is worked out here in plain Python
from the same rows, not by running the reference solution, so that each proves the other. A decoy is a
plausible wrong solution that the check must reject.
"""

from __future__ import annotations

from bench_data.digest import samples_digest
from bench_data.quickstart import audio, chart, image, mathematics, software, text
from bench_data.sample import Benchmark, Samples

CATEGORIES = (chart, text, image, audio, mathematics, software)


def load() -> Benchmark:
    """Return the benchmark; takes a fraction of a second and reads no file."""
    samples = tuple(sample for category in CATEGORIES for sample in category.samples())
    return Benchmark(
        name="quickstart", samples=Samples.of(samples), protocol="fenced", digest=samples_digest(samples)
    )
