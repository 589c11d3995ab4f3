"""One trajectory: ask the model, execute its actions, tell it the observations, until something ends it.

The rollout is the one place where an error of the model client or of the sandbox becomes a stop reason;
any other exception is a bug of ours and ends the run. Each finished turn is written ahead
(journal/inflight.py), so that another try, or another process, goes on behind it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench_data import Sample
from runner.config import Limits, Prices, ResumeConfig, RunConfig
from runner.errors import ModelError
from runner.journal import TurnLog
from runner.models import Completion, ModelClient, ModelRequest
from runner.models.conversation import Conversation, opening_messages
from runner.protocols import Action, Malformed, Protocol, Reply
from runner.records import StopReason, Turn, TurnTimings, Usage
from runner.telemetry.meter import AttemptPhase, RunMeter
from runner.telemetry.statistics import Phase
from runner.telemetry.tracing import NoTracer, Tracer
from runner.trajectory.call_timer import CallTimer
from runner.trajectory.endings import ending_of_model_error, ending_of_sandbox_error, ending_of_time
from runner.trajectory.lease import ArtifactsFolder, Lease, Sandboxes
from runner.trajectory.limits import Budget
from runner.trajectory.outcome import Outcome
from runner.trajectory.recovery import RecordedTurn, execute_again
from runner.trajectory.turn_writer import TurnWriter, note_action
from sandbox_pool import SandboxError, SandboxSetupError, UnsupportedHost


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """What all rollouts of a run share."""

    model: ModelClient
    protocol: Protocol
    sandboxes: Sandboxes
    limits: Limits
    system_prompt: str
    merge_user_messages: bool
    meter: RunMeter
    tracer: Tracer = field(default_factory=NoTracer)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    prices: Prices | None = None
    send_reasoning: bool = False

    @classmethod
    def of_run(
        cls,
        config: RunConfig,
        *,
        model: ModelClient,
        protocol: Protocol,
        sandboxes: Sandboxes,
        system_prompt: str,
        tracer: Tracer,
    ) -> RolloutSettings:
        """Return those of a run, or of a worker's part of it, by its config."""
        return cls(
            model=model,
            protocol=protocol,
            sandboxes=sandboxes,
            limits=config.limits,
            system_prompt=system_prompt,
            merge_user_messages=config.merges_user_messages,
            meter=RunMeter(),
            tracer=tracer,
            resume=config.resume,
            prices=config.model.prices,
            send_reasoning=config.model.send_reasoning,
        )


class Rollout:
    """One try of one attempt. The folder of its artifacts is emptied by the caller and filled here.

    Its kernels start from `seed`, each of them and those of every other try.
    """

    def __init__(
        self,
        settings: RolloutSettings,
        sample: Sample,
        epoch: int,
        folder: ArtifactsFolder,
        *,
        seed: int,
        phase: AttemptPhase,
        turn_log: TurnLog | None = None,
        recorded: Sequence[RecordedTurn] = (),
    ) -> None:
        self._settings = settings
        self._sample = sample
        self._epoch = epoch
        self._seed = seed
        self._phase = phase
        self._recorded = list(recorded)
        used_s = self._recorded[-1].working_s if self._recorded else 0.0
        self._budget = Budget(settings.limits, used_s=used_s)
        self._lease = Lease(settings.sandboxes, sample, folder, seed=seed, on_wait=self._on_sandbox_wait)
        self._waiting_since = 0.0
        self.divergence: str | None = None
        """The first difference that executing again gave and the config let pass."""

        opening = opening_messages(sample, settings.system_prompt, merge=settings.merge_user_messages)
        self.outcome = Outcome(Conversation(opening))
        self._writer = TurnWriter(self.outcome, folder, turn_log)

    async def run(self) -> Outcome:
        """Run to the end and return what came of it, with artifacts on disk and synced.

        Cancelling it closes the sandbox and raises CancelledError; `outcome` then holds the turns
        that were finished.

        Raises:
            CannotResume: the recorded turns diverge; a rollout without them can begin.
        """
        async with self._lease:
            try:
                await self._resume()
                await self._run_within_wall_time()
                self.outcome.artifacts.extend(await self._lease.collect())
            except UnsupportedHost:
                raise  # no attempt of this run can do better
            except SandboxError as error:
                self.outcome.stop(*ending_of_sandbox_error(error, self._sample))
                self.outcome.would_repeat = isinstance(error, SandboxSetupError)
        return self.outcome

    async def _resume(self) -> None:
        """Go on behind the recorded turns."""
        if not self._recorded:
            return
        outcome = self.outcome
        outcome.broke_resuming = True
        self._phase.enter(Phase.EXECUTING)
        with self._budget.waiting():
            cell_s = self._settings.limits.cell_s
            self.divergence = await execute_again(self._lease, self._recorded, cell_s, self._settings.resume)
        outcome.broke_resuming = False
        for recorded in self._recorded:
            outcome.take_over(recorded.turn, recorded.messages, recorded.artifacts)
            for code, _ in recorded.actions:
                self._budget.is_repeated(code)

    async def _run_within_wall_time(self) -> None:
        """Run the turns; only a wait of ours can last beyond the wall time that cells and calls respect."""
        wall_s = self._budget.remaining_wall_s
        deadline = asyncio.timeout(wall_s if wall_s < float("inf") else None)
        try:
            async with deadline:
                await self._run_turns()
        except TimeoutError:
            if not deadline.expired():
                raise  # a sandbox's PoolTimeout is one too
            self._stop_for_time()

    async def _run_turns(self) -> None:
        while True:
            reason = self._budget.exceeded(len(self.outcome.turns), self.outcome.usage)
            if reason is StopReason.TIME_LIMIT:
                self._stop_for_time()
                return
            if reason is not None:
                self.outcome.stop(reason)
                return
            with self._settings.tracer.span("turn", {"kernelfleet.turn": len(self.outcome.turns) + 1}):
                if not await self._run_turn():
                    return

    async def _run_turn(self) -> bool:
        """Ask, and act on the reply. Return whether another turn follows."""
        deadline = asyncio.timeout(self._budget.remaining_s)
        try:
            async with deadline:
                turn, completion = await self._ask(deadline)
        except TimeoutError:
            if not deadline.expired():
                raise
            self._stop_for_time()
            return False
        except ModelError as error:
            self.outcome.stop(*ending_of_model_error(error))
            return False
        return await self._act(turn, completion)

    async def _ask(self, deadline: asyncio.Timeout) -> tuple[Turn, Completion]:
        outcome = self.outcome
        n_turn = len(outcome.turns)
        timer = CallTimer(self._budget, self._phase, deadline)
        request = ModelRequest(
            sample=self._sample,
            epoch=self._epoch,
            n_turns_done=n_turn,
            conversation=outcome.conversation,
            stop=self._settings.protocol.stop,
            tools=self._settings.protocol.tools,
            seed=turn_seed(self._seed, n_turn),
            clock=timer,
        )
        completion, model_s = await self._complete(request, timer)
        if self._settings.prices is not None:
            usage = completion.usage
            usage.cost = self._settings.prices.cost(usage.prompt_tokens, usage.completion_tokens)
        outcome.usage.add(completion.usage)
        self._settings.meter.on_turn(Usage() if completion.is_cached else completion.usage)
        turn = Turn(
            completion=completion.text,
            reasoning=completion.reasoning,
            tool_calls=completion.tool_calls,
            finish_reason=completion.finish_reason,
            logprobs=completion.logprobs,
            usage=completion.usage,
            timings=TurnTimings(model_s=model_s),
        )
        return turn, completion

    async def _complete(self, request: ModelRequest, timer: CallTimer) -> tuple[Completion, float]:
        """Return the reply, and how long the model took for it, in seconds."""
        self._phase.enter(Phase.MODEL)
        model, timings = self._settings.model, self.outcome.timings
        began_at = time.perf_counter()
        attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": model.name}
        try:
            with self._settings.tracer.span("chat", attributes) as span:
                completion = await model.complete(request)
                span.set_attributes(
                    {
                        "gen_ai.usage.input_tokens": completion.usage.prompt_tokens,
                        "gen_ai.usage.output_tokens": completion.usage.completion_tokens,
                    }
                )
        finally:
            model_s = time.perf_counter() - began_at - timer.waited_s
            timings.model_s += model_s
            timings.call_wait_s += timer.waited_s
        return completion, model_s

    async def _act(self, turn: Turn, completion: Completion) -> bool:
        """Carry out what a reply asks for. Return whether another turn follows."""
        outcome = self.outcome
        reply = self._settings.protocol.parse(
            completion.text, completion.finish_reason, completion.tool_calls
        )
        self._writer.begin()
        outcome.conversation.append(self._message_of(reply, completion))
        outcome.turns.append(turn)
        if not reply.actions:
            cut = completion.finish_reason == "length"
            outcome.stop(StopReason.LENGTH if cut else StopReason.ANSWER)
            return False
        for number, action in enumerate(reply.actions):
            if isinstance(action, Malformed):
                outcome.conversation.append(self._settings.protocol.problem_message(action))
            elif not await self._carry_out(turn, action, number):
                return False
        self._writer.write_ahead(turn, self._budget.working_s)
        return True

    def _message_of(self, reply: Reply, completion: Completion) -> dict[str, Any]:
        if self._settings.send_reasoning and completion.reasoning:
            return {**reply.message, "reasoning_content": completion.reasoning}
        return reply.message

    async def _carry_out(self, turn: Turn, action: Action, number: int) -> bool:
        """Execute one action and tell the model. Return False when it came once too often."""
        note_action(turn, action)
        if self._budget.is_repeated(action.code):
            self.outcome.stop(StopReason.REPEATED_ACTION)
            return False
        self._phase.enter(Phase.EXECUTING)
        with self._settings.tracer.span("execute", {}) as span:
            observation = await self._lease.execute(action.code, lambda: self._budget.cell_s)
            span.set_attributes({"kernelfleet.status": str(observation.status)})
        await self._writer.observe(turn, observation, number)
        message = self._settings.protocol.observation_message(action, observation)
        self.outcome.conversation.append(message)
        return True

    def _on_sandbox_wait(self, waits: bool) -> None:  # noqa: FBT001 - a callback
        if waits:
            self._waiting_since = time.perf_counter()
            self._phase.enter(Phase.SANDBOX)
            return
        waited_s = time.perf_counter() - self._waiting_since
        self.outcome.timings.sandbox_wait_s += waited_s
        if not self.outcome.broke_resuming:  # else all of it is excused already
            self._budget.excuse(waited_s)
        self._phase.enter(Phase.EXECUTING)

    def _stop_for_time(self) -> None:
        is_lost = self._budget.is_wall_lost_to_waits
        wall_s = self._settings.limits.wall_s
        self.outcome.stop(*ending_of_time(self.outcome.timings, wall_s, is_lost_to_waits=is_lost))


def turn_seed(attempt_seed: int, n_turns_done: int) -> int:
    """Return the seed of a turn, 0 to 2**32 - 1: the same when the turn is asked for again."""
    if n_turns_done == 0:
        return attempt_seed
    digest = hashlib.sha256(f"{attempt_seed}:{n_turns_done}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
