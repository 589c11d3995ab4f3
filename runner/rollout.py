"""One trajectory: ask the model, execute its action, tell it the observation, until something ends it.

The rollout leases a sandbox at the first action and not before. It is the one place where an error of
the model client or of the sandbox becomes a stop reason; any other exception is a bug of ours and
ends the run.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench_data import Sample, SampleFile
from runner.artifacts import has_pictures, observation_record, writing
from runner.config import Limits
from runner.conversation import opening_messages
from runner.errors import ContextOverflow, ModelError, ModelUnavailable, ReplayEnded
from runner.limits import Budget
from runner.models import ModelClient, ModelRequest
from runner.protocols import Action, Answer, Protocol
from runner.records import OWNER_OF, ArtifactRecord, Owner, StopReason, Timings, Turn, TurnTimings, Usage
from sandbox_pool import (
    CollectedFile,
    Observation,
    Pool,
    Sandbox,
    SandboxError,
    SandboxPathError,
    SandboxSetupError,
    SandboxSpec,
    Status,
    UnsupportedHost,
)

logger = logging.getLogger(__name__)

OUTPUT_FOLDER = "output"
CARRIED_FOLDER = ".carried"
"""In the folder of an attempt's artifacts, while files move from a dead sandbox to a fresh one."""


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """What all rollouts of a run share."""

    model: ModelClient
    protocol: Protocol
    pool: Pool
    limits: Limits
    system_prompt: str
    merge_user_messages: bool
    artifact_globs: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What one try of an attempt came to."""

    messages: list[dict[str, Any]]
    turns: list[Turn] = field(default_factory=list)
    stop_reason: StopReason = StopReason.CANCELLED
    owner: Owner = Owner.RUNNER
    error: str | None = None
    would_repeat: bool = False
    """Whether another try would end the same way."""

    artifacts: list[ArtifactRecord] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)

    def stop(self, reason: StopReason, error: str | None = None, owner: Owner | None = None) -> None:
        """Say why it ended."""
        self.stop_reason = reason
        self.owner = owner or OWNER_OF.get(reason, Owner.MODEL)
        self.error = error


class Rollout:
    """One try of one attempt. `artifacts_dir` is emptied by the caller and filled here.

    Its kernels start from `seed`, each of them and those of every other try.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        sample: Sample,
        epoch: int,
        artifacts_dir: Path,
        artifacts_prefix: str,
        *,
        seed: int,
    ) -> None:
        self._settings = settings
        self._sample = sample
        self._epoch = epoch
        self._artifacts_dir = artifacts_dir
        self._artifacts_prefix = artifacts_prefix
        self._spec = SandboxSpec(
            profile=sample.profile, seed=seed, setup=sample.setup, workspace=sample.workspace
        )
        self._budget = Budget(settings.limits)
        self._sandbox: Sandbox | None = None
        self._stack = AsyncExitStack()
        self.outcome = Outcome(
            messages=opening_messages(sample, settings.system_prompt, merge=settings.merge_user_messages)
        )

    async def run(self) -> Outcome:
        """Run to the end and return what came of it, with artifacts on disk and synced.

        Cancelling it closes the sandbox and raises CancelledError; `outcome` then holds the turns
        that were finished.
        """
        async with self._stack:
            try:
                await self._run_turns()
                await self._collect_artifacts()
            except UnsupportedHost:
                raise  # no attempt of this run can do better
            except SandboxSetupError as error:
                what = f"the setup cell of sample {self._sample.id} failed; correct it and begin a new run"
                self.outcome.stop(StopReason.SANDBOX_ERROR, f"{what}\n{error}")
                self.outcome.would_repeat = True
            except SandboxError as error:
                self.outcome.stop(StopReason.SANDBOX_ERROR, f"{type(error).__name__}: {error}")
        return self.outcome

    async def _run_turns(self) -> None:
        while True:
            reason = self._budget.exceeded(len(self.outcome.turns), self.outcome.usage)
            if reason is not None:
                self.outcome.stop(reason)
                return
            try:
                async with asyncio.timeout(self._budget.remaining_s) as deadline:
                    turn = await self._ask(deadline)
            except TimeoutError:
                self.outcome.stop(StopReason.TIME_LIMIT)
                return
            except ModelError as error:
                self._stop_for_model_error(error)
                return
            if not await self._act(turn):
                return

    async def _ask(self, deadline: asyncio.Timeout) -> Turn:
        outcome = self.outcome

        def excuse(seconds: float) -> None:
            self._budget.excuse(seconds)
            if not deadline.expired():
                deadline.reschedule((deadline.when() or 0.0) + seconds)

        request = ModelRequest(
            sample=self._sample,
            epoch=self._epoch,
            n_turns_done=len(outcome.turns),
            messages=outcome.messages,
            stop=self._settings.protocol.stop,
            excuse=excuse,
        )
        began_at = time.perf_counter()
        try:
            completion = await self._settings.model.complete(request)
        finally:
            model_s = time.perf_counter() - began_at
            outcome.timings.model_s += model_s
        outcome.usage.add(completion.usage)
        return Turn(
            completion=completion.text,
            reasoning=completion.reasoning,
            tool_calls=completion.tool_calls,
            finish_reason=completion.finish_reason,
            usage=completion.usage,
            timings=TurnTimings(model_s=model_s),
        )

    async def _act(self, turn: Turn) -> bool:
        """Carry out what a reply asks for. Return whether another turn follows."""
        reply = self._settings.protocol.parse(turn.completion, turn.finish_reason)
        self.outcome.messages.append({"role": "assistant", "content": reply.message})
        self.outcome.turns.append(turn)
        match reply:
            case Answer():
                cut = turn.finish_reason == "length"
                self.outcome.stop(StopReason.LENGTH if cut else StopReason.ANSWER)
                return False
            case Action(code=code):
                turn.action = code
                observation = await self._execute(code)
                await self._record_observation(turn, observation)
                return True

    async def _execute(self, code: str) -> Observation:
        sandbox = self._sandbox = self._sandbox or await self._first_sandbox()
        observation = await sandbox.execute(code, timeout_s=self._budget.cell_s)
        if observation.status is Status.SANDBOX_FAULT:
            raise SandboxError("the sandbox broke by our fault (status sandbox_fault)")
        if not observation.kernel_alive:
            await self._replace_kernel(sandbox)
        return observation

    async def _record_observation(self, turn: Turn, observation: Observation) -> None:
        turn.timings.execute_s = observation.duration_s
        self.outcome.timings.execute_s += observation.duration_s
        record = partial(
            observation_record,
            observation,
            self._artifacts_dir,
            self._artifacts_prefix,
            len(self.outcome.turns),
        )
        with writing(self._artifacts_dir):
            # Most turns have no picture, and so no need of a thread.
            in_thread = has_pictures(observation)
            turn.observation, pictures = await asyncio.to_thread(record) if in_thread else record()
        self.outcome.artifacts.extend(pictures)
        content = self._settings.protocol.render_observation(observation)
        self.outcome.messages.append({"role": "user", "content": content})

    async def _lease(self) -> Sandbox:
        began_at = time.perf_counter()
        with self._budget.waiting():
            sandbox = await self._stack.enter_async_context(self._settings.pool.acquire(self._spec))
        self.outcome.timings.sandbox_wait_s += time.perf_counter() - began_at
        return sandbox

    async def _first_sandbox(self) -> Sandbox:
        """Lease a sandbox and put the sample's files in."""
        sandbox = await self._lease()
        try:
            await sandbox.make_folder(OUTPUT_FOLDER)
        except OSError as error:
            raise SandboxError(f"no folder {OUTPUT_FOLDER} can be made: {error}") from error
        for file in self._sample.files:
            await self._put_input(sandbox, file)
        return sandbox

    async def _put_input(self, sandbox: Sandbox, file: SampleFile) -> None:
        content = file.content
        try:
            data = content if isinstance(content, Path) else await asyncio.to_thread(content)
            await sandbox.put(file.path, data)
        except OSError as error:
            raise SandboxError(f"input {file.path} of {self._sample.id} cannot be copied: {error}") from error

    async def _replace_kernel(self, dead: Sandbox) -> None:
        """Go on after a kernel died: a fresh sandbox, with the files that the dead one left."""
        self._sandbox = None
        folder = self._artifacts_dir / CARRIED_FOLDER
        try:
            with writing(folder):
                files = await dead.collect(["**"], into=folder)
            await dead.close()
            sandbox = await self._lease()
            kept = [file.path for file in files if file.problem is None]
            try:
                await self._carry(sandbox, kept, folder)
            except OSError as error:
                raise SandboxError(f"files cannot be carried to a fresh sandbox: {error}") from error
            self._sandbox = sandbox
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _carry(self, sandbox: Sandbox, kept: list[str], folder: Path) -> None:
        """Fill a sandbox as the one before was, whatever the code had put where something else was.

        A file may be where an input's folder was, or where the setup cell or the workspace is again.
        """
        for path in kept:
            with suppress(SandboxPathError):
                await sandbox.put(path, folder / path)
        with suppress(SandboxPathError):
            await sandbox.make_folder(OUTPUT_FOLDER)
        for file in self._sample.files:
            if file.path not in kept:
                with suppress(SandboxPathError):
                    await self._put_input(sandbox, file)

    async def _collect_artifacts(self) -> None:
        if self._sandbox is None:
            return
        with writing(self._artifacts_dir):
            files = await self._sandbox.collect(self._settings.artifact_globs, into=self._artifacts_dir)
        self.outcome.artifacts.extend(_artifact_record(self._artifacts_prefix, file) for file in files)

    def _stop_for_model_error(self, error: ModelError) -> None:
        match error:
            case ContextOverflow():
                self.outcome.stop(StopReason.CONTEXT_OVERFLOW, str(error))
            case ReplayEnded():
                self.outcome.stop(StopReason.MODEL_ERROR, str(error), Owner.MODEL)
            case ModelUnavailable():
                self.outcome.stop(StopReason.ENGINE_ERROR, str(error))
            case _:
                self.outcome.stop(StopReason.MODEL_ERROR, str(error), Owner.ENGINE)


def _artifact_record(prefix: str, file: CollectedFile) -> ArtifactRecord:
    return ArtifactRecord(
        path=f"{prefix}/{file.path}", bytes=file.n_bytes, sha256=file.sha256, problem=file.problem
    )
