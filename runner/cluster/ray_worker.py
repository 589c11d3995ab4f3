"""The Ray actor that holds a worker."""

from __future__ import annotations

from typing import Any


def worker_class() -> type:
    """Return the class of the actor.

    Made in a function, so that Ray carries it by value: its process may import another `runner`, from the
    folder that it is started in, and is to find that out itself. It names nothing outside of itself.
    """

    class KernelfleetWorker:
        def start(self, root: str, digest: str) -> str | None:
            """Find our packages; return what is wrong with those that are here, if something is."""
            import importlib
            import os
            import sys

            ours = ("runner", "sandbox_pool", "bench_data", "scoring")
            if os.path.isfile(os.path.join(root, "runner", "cluster", "worker.py")):  # noqa: PTH113, PTH118
                sys.path.insert(0, root)  # before the folder that this process was started in
                importlib.invalidate_caches()
                for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
                    del sys.modules[name]
            try:
                from runner.cluster.digest import packages_digest, packages_root
                from runner.cluster.worker import Worker
                from runner.engines.raylet import end_with_raylet
            except ImportError as error:
                found = getattr(sys.modules.get("runner"), "__file__", None)
                where = f"; what it takes for runner is {found}" if found else ""
                return f"our packages cannot be imported there ({error}){where}"
            if packages_digest(packages_root()) != digest:
                return f"it has other code than the driver, in {packages_root()}"
            end_with_raylet()
            self._worker = Worker()
            return None

        async def call(self, method: str, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
            """Call a method of the worker; return its result, or its error in a form that can be read."""
            import inspect

            from runner.cluster.worker import portable

            try:
                result = getattr(self._worker, method)(*arguments)
                return (await result if inspect.isawaitable(result) else result), None
            except Exception as error:  # noqa: BLE001 - the caller raises it
                return None, portable(error)

        async def messages(self, after: int) -> Any:
            """Yield what the worker says."""
            async for batch in self._worker.messages(after):
                yield batch

    return KernelfleetWorker
