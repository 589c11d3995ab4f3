"""`python -m sandbox_pool bench`: the pool beside cold kernels of jupyter_client, in one run.

`add_arguments` and `run` are the command; `measure_all` takes other peers too (tests/bench).
"""

from sandbox_pool.bench.command import add_arguments, measure_all, run

__all__ = ["add_arguments", "measure_all", "run"]
