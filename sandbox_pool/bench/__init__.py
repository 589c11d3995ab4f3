"""`python -m sandbox_pool bench`: the pool beside cold kernels of jupyter_client, in one run.

`add_arguments` and `run` are the command; `present` takes further peers (tests/bench/sandbox_pool.py).
"""

from sandbox_pool.bench.command import add_arguments, present, run

__all__ = ["add_arguments", "present", "run"]
