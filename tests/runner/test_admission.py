"""How caps follow what was observed: on simulated engines, in virtual time."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runner.admission import Adaptation, EndpointAdmission, EngineLoad, HostPressure, SandboxAdmission
from runner.config import AdmissionConfig

CALM = EngineLoad(
    n_running=1, n_waiting=0, kv_usage=0.1, n_preemptions=0, n_generated_tokens=0, max_kv_tokens=None
)


@dataclass
class Engine:
    """Serves `slots` calls at a time, each in `call_s`; refuses beyond `refuses_above`, else queues."""

    slots: int
    call_s: float
    refuses_above: int | None = None

    def run(self, admission: EndpointAdmission, seconds: float, n_wanted: int = 10_000) -> tuple[float, int]:
        """Keep as many calls in flight as the cap allows; return calls per second of the last third, and refusals."""
        now, n_refused, n_late, in_flight = 0.0, 0, 0, []
        free_at = [0.0] * self.slots
        heapq.heapify(free_at)
        while now < seconds:
            while len(in_flight) < min(admission.max_calls, n_wanted):
                if self.refuses_above is not None and len(in_flight) >= self.refuses_above:
                    n_refused += 1
                    admission.on_refusal(now, status=429, n_in_flight=len(in_flight) + 1)
                    break
                begins_at = max(now, heapq.heappop(free_at))
                heapq.heappush(free_at, begins_at + self.call_s)
                heapq.heappush(in_flight, (begins_at + self.call_s, now))
            now, began_at = heapq.heappop(in_flight)
            n_late += now > seconds * 2 / 3
            admission.on_call(
                now, latency_s=now - began_at, n_completion_tokens=100, n_in_flight=len(in_flight) + 1
            )
        return n_late / (seconds / 3), n_refused


def adaptive(max_calls: int = 256, max_trajectories: int = 256) -> EndpointAdmission:
    return EndpointAdmission(AdmissionConfig(), max_calls=max_calls, max_trajectories=max_trajectories)


@pytest.mark.parametrize(("bound", "within_s"), [(256, 2.0), (1024, 3.0)])
def test_fast_server_gets_all_it_bears(bound: int, within_s: float) -> None:
    """A server with room for everything is at the user's limit within seconds."""
    admission = adaptive(bound)
    Engine(slots=10_000, call_s=0.05).run(admission, within_s)
    assert admission.max_calls == bound


@pytest.mark.parametrize("slots", [1, 4, 20, 64])
def test_server_that_queues_is_not_flooded(slots: int) -> None:
    """A laptop's server with a few slots gives its full throughput, and its queue stays short."""
    admission = adaptive()
    throughput, _ = Engine(slots=slots, call_s=2.0).run(admission, 600)
    assert throughput >= 0.95 * slots / 2.0
    assert admission.max_calls <= max(32, 3.5 * slots)


def test_server_that_refuses_is_met_with_fewer() -> None:
    """Calls stay about what the server takes, and few of them are refused."""
    admission = adaptive()
    throughput, n_refused = Engine(slots=50, call_s=0.5, refuses_above=40).run(admission, 300)
    assert throughput >= 0.8 * 40 / 0.5
    assert n_refused < 0.15 * throughput * 300
    assert admission.max_calls < 80


def test_a_few_refusals_are_noise() -> None:
    """One refusal in a hundred calls does not shrink anything."""
    admission = adaptive()
    Engine(slots=10_000, call_s=0.05).run(admission, 3)
    for number in range(2000):
        now = 3 + number / 100
        admission.on_call(now, latency_s=0.05, n_completion_tokens=9, n_in_flight=256)
        if number % 100 == 0:
            admission.on_refusal(now, status=503, n_in_flight=256)
    assert admission.max_calls >= 200


def test_few_callers_change_nothing() -> None:
    """Where the cap does not bind, nothing is learnt about it."""
    admission = adaptive()
    Engine(slots=100, call_s=0.1).run(admission, 60, n_wanted=3)
    assert admission.max_calls == 16


def test_fixed_is_fixed() -> None:
    """Not adaptive, the caps are what the user says, whatever comes."""
    admission = EndpointAdmission(AdmissionConfig(mode="fixed"), max_calls=8, max_trajectories=64)
    Engine(slots=100, call_s=0.1, refuses_above=4).run(admission, 10)
    admission.on_load(
        1.0, replace(CALM, kv_usage=0.99), n_calls_in_flight=8, n_calls_waiting=9, n_trajectories=64
    )
    assert (admission.max_calls, admission.max_trajectories) == (8, 64)


def on_load(admission: EndpointAdmission, now: float, load: EngineLoad, n: int = 200) -> list[Adaptation]:
    return admission.on_load(now, load, n_calls_in_flight=n, n_calls_waiting=5, n_trajectories=n)


def test_full_kv_cache_trims_trajectories() -> None:
    """Above 80 % trajectories are trimmed to what fills 70 %, and again only after a while."""
    admission = adaptive()
    on_load(admission, 0.0, CALM)
    (trimmed,) = on_load(admission, 20.0, replace(CALM, kv_usage=0.875))
    assert (trimmed.what, trimmed.before, trimmed.after) == ("trajectories", 256, 160)
    assert "88% full" in trimmed.reason
    assert on_load(admission, 22.0, replace(CALM, kv_usage=0.875), 160) == []
    assert on_load(admission, 26.0, replace(CALM, kv_usage=0.95), 160)[0].after == 117


def test_preemptions_cut_and_a_restart_does_not() -> None:
    """Only new preemptions count; a counter that fell belongs to a new engine."""
    admission = adaptive()
    on_load(admission, 0.0, replace(CALM, n_preemptions=50))
    assert admission.max_trajectories == 256
    (cut,) = on_load(admission, 5.0, replace(CALM, n_preemptions=53))
    assert (cut.after, cut.reason) == (160, "3 preemptions")
    on_load(admission, 10.0, replace(CALM, n_preemptions=0, kv_usage=0.7))
    assert admission.max_trajectories == 160


@pytest.mark.parametrize("trouble", ["usage", "preemptions"])
def test_a_cut_that_is_waited_for_is_not_made_again(trouble: str) -> None:
    """Running trajectories go on for minutes: the cap follows what is there, and not itself down to one."""
    admission = adaptive(100, 100)
    on_load(admission, 0.0, CALM, 100)
    for poll in range(1, 300):
        load = replace(CALM, n_generated_tokens=poll)
        load = replace(load, kv_usage=0.85) if trouble == "usage" else replace(load, n_preemptions=poll)
        on_load(admission, 10.0 + 2 * poll, load, 100)
    assert admission.max_trajectories == (82 if trouble == "usage" else 80)
    on_load(admission, 620.0, replace(load, kv_usage=0.95, n_generated_tokens=0), 82)
    assert admission.max_trajectories == 60


def test_a_cache_that_is_not_told_of_any_more_lets_nothing_grow() -> None:
    """Not a number, or no line; where it never was, the queue and the preemptions have to do."""
    lost, silent = adaptive(), adaptive()
    for admission, first in ((lost, CALM), (silent, replace(CALM, kv_usage=None))):
        on_load(admission, 0.0, first)
        on_load(admission, 10.0, replace(CALM, kv_usage=None))
    assert (lost.max_calls, silent.max_calls) == (16, 32)
    on_load(lost, 12.0, CALM)
    assert lost.max_calls == 32


def test_a_time_without_looks_is_no_stall() -> None:
    """The runner was stopped; whether the engine had calls meanwhile, nobody knows."""
    admission = adaptive()
    on_load(admission, 0.0, replace(CALM, n_running=0))
    assert not [change for change in on_load(admission, 600.0, CALM) if "no token" in change.reason]
    on_load(admission, 620.0, CALM)
    assert "no token" in on_load(admission, 631.0, CALM)[0].reason


def test_caps_at_their_least_grow_again() -> None:
    """One call and one trajectory at each engine: what runs goes on, and what waits comes in by and by."""
    admission = adaptive()
    stalled = replace(CALM, n_running=1, kv_usage=0.0)
    for poll in range(100):
        on_load(admission, 10.0 * poll, stalled, 1)
    assert (admission.max_calls, admission.max_trajectories) == (1, 1)
    for poll in range(1, 41):
        works = replace(stalled, n_generated_tokens=poll)
        on_load(admission, 1000.0 + 2 * poll, works, admission.max_trajectories)
    assert (admission.max_calls, admission.max_trajectories) == (256, 256)


def test_queue_in_the_engine_cuts_calls() -> None:
    """Calls that wait in the engine for several looks could as well wait here."""
    admission = adaptive()
    Engine(slots=10_000, call_s=0.05).run(admission, 3)
    queued = replace(CALM, n_running=40, n_waiting=60)
    on_load(admission, 8.0, CALM)
    changes = [on_load(admission, 10.0 + 2 * number, queued) for number in range(3)]
    assert changes[:2] == [[], []]
    assert changes[2][0].what == "calls"
    assert changes[2][0].after == 70


def test_room_in_the_kv_cache_lets_grow() -> None:
    """Below 60 % and without a queue both caps grow by a quarter while they bind, up to the user's limit."""
    admission = adaptive()
    on_load(admission, 0.0, replace(CALM, max_kv_tokens=80_000))
    assert admission.max_trajectories == 9
    for poll in range(40):
        on_load(
            admission, 20.0 + 2 * poll, replace(CALM, kv_usage=0.3), n=min(256, admission.max_trajectories)
        )
    assert (admission.max_trajectories, admission.max_calls) == (256, 256)


def test_users_limit_can_change() -> None:
    """A lower limit holds at once; a higher one gives room."""
    admission = adaptive()
    admission.set_bounds(max_calls=4, max_trajectories=4)
    assert (admission.max_calls, admission.max_trajectories) == (4, 4)
    admission.set_bounds(max_calls=512, max_trajectories=512)
    assert admission.max_trajectories == 512
    Engine(slots=10_000, call_s=0.05).run(admission, 5)
    assert admission.max_calls == 512


LOADS = st.builds(
    EngineLoad,
    n_running=st.integers(0, 500), n_waiting=st.integers(0, 500),
    kv_usage=st.none() | st.floats(0, 1), n_preemptions=st.integers(0, 100),
    n_generated_tokens=st.integers(0, 3), max_kv_tokens=st.none() | st.integers(1, 10**7),
    n_waiting_for_room=st.none() | st.integers(0, 500),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 300))
def test_caps_stay_between_one_and_the_bound(data: st.DataObject, bound: int) -> None:
    """Whatever is observed."""
    admission, now = adaptive(bound, bound), 0.0
    for _ in range(data.draw(st.integers(0, 60))):
        now += data.draw(st.floats(0, 20))
        n = data.draw(st.integers(0, 400))
        match data.draw(st.sampled_from(["call", "refusal", "load", "load", "restart"])):
            case "restart":
                admission.restart()
            case "call":
                admission.on_call(
                    now, latency_s=data.draw(st.floats(0, 50)), n_completion_tokens=n, n_in_flight=n
                )
            case "refusal":
                admission.on_refusal(now, status=429, n_in_flight=n)
            case "load":
                admission.on_load(
                    now, data.draw(LOADS), n_calls_in_flight=n, n_calls_waiting=n, n_trajectories=n
                )
        assert 1 <= admission.max_calls <= bound
        assert 1 <= admission.max_trajectories <= bound


@settings(max_examples=100, deadline=None)
@given(st.lists(LOADS, min_size=1, max_size=20), st.integers(1, 400), st.floats(0.001, 5))
def test_nothing_grows_when_polls_stop(loads: list[EngineLoad], n_in_flight: int, latency_s: float) -> None:
    """An engine whose metrics were read and are not any more is not felt out by its answers."""
    admission, now = adaptive(), 0.0
    for load in loads:
        now += 2.0
        on_load(admission, now, load, n_in_flight)
    calls, trajectories = admission.max_calls, admission.max_trajectories
    for number in range(2000):
        now += 0.05
        admission.on_call(now, latency_s=latency_s, n_completion_tokens=9, n_in_flight=n_in_flight)
        if number % 500 == 499:
            admission.on_refusal(now, status=503, n_in_flight=n_in_flight)
        assert admission.max_calls <= calls
        assert admission.max_trajectories <= trajectories


def test_engine_that_makes_no_token_is_given_less() -> None:
    """After `stall_s`, and again after as long; one that has nothing to do makes none, and that is well."""
    admission = adaptive()
    stalled = replace(CALM, n_running=40, n_generated_tokens=7, kv_usage=0.65)
    on_load(admission, 0.0, stalled)
    assert on_load(admission, 28.0, stalled) == []
    calls, trajectories = on_load(admission, 30.0, stalled, 100)
    assert (calls.what, calls.before, calls.after) == ("calls", 16, 12)
    assert (trajectories.what, trajectories.before, trajectories.after) == ("trajectories", 256, 80)
    assert "no token for 30 s with 40 calls" in calls.reason
    assert on_load(admission, 58.0, stalled) == []
    assert on_load(admission, 60.0, stalled, 100)[1].after == 64
    assert on_load(admission, 89.0, replace(stalled, n_generated_tokens=8)) == []
    assert on_load(admission, 100.0, replace(stalled, n_generated_tokens=8)) == []
    idle = replace(stalled, n_running=0)
    assert [on_load(admission, 101.0 + 10 * poll, idle) for poll in range(20)] == [[]] * 20


def test_only_calls_that_want_room_are_a_queue() -> None:
    """Those that wait for something else, such as a grammar, do not keep an engine from being given more."""
    admission = adaptive()
    deferred = replace(CALM, n_waiting=40, n_waiting_for_room=0)
    on_load(admission, 0.0, deferred)
    (grown,) = on_load(admission, 2.0, deferred, 300)
    assert (grown.what, grown.after) == ("calls", 32)
    full = replace(CALM, n_running=16, n_waiting=40, n_waiting_for_room=12)
    changes = [on_load(admission, 6.0 + 2 * poll, full) for poll in range(3)]
    assert changes[:2] == [[], []]
    assert changes[2][0].after == 22
    assert "12 calls queue in the engine beside 16 running" in changes[2][0].reason


def test_counters_that_fall_are_a_new_beginning() -> None:
    """What an engine counts after it was started again is new, and what it had counted before is not."""
    admission = adaptive()
    on_load(admission, 0.0, replace(CALM, n_preemptions=100, kv_usage=0.7))
    assert on_load(admission, 20.0, replace(CALM, n_preemptions=0, kv_usage=0.7)) == []
    (cut,) = on_load(admission, 22.0, replace(CALM, n_preemptions=3, kv_usage=0.7))
    assert (cut.after, cut.reason) == (160, "3 preemptions")
    (cut,) = on_load(admission, 24.0, replace(CALM, n_preemptions=2, kv_usage=0.7), 160)
    assert cut.reason == "2 preemptions"


def test_engine_that_was_started_again_begins_again() -> None:
    """What was learnt of the one that is gone does not bind the new one, and is not compared with it."""
    admission = adaptive()
    on_load(admission, 0.0, replace(CALM, n_preemptions=9))
    on_load(admission, 20.0, replace(CALM, kv_usage=0.95), 20)
    for number in range(20):
        admission.on_refusal(30.0 + number, status=503, n_in_flight=16)
    assert (admission.max_calls, admission.max_trajectories) == (1, 14)
    changes = admission.restart()
    assert {change.reason for change in changes} == {"the engine was started again"}
    assert (admission.max_calls, admission.max_trajectories) == (16, 256)
    assert on_load(admission, 60.0, replace(CALM, max_kv_tokens=800_000))[0].after == 97
    assert admission.restart()[-1].after == 256
    assert admission.restart() == []


def test_thresholds_are_the_configs() -> None:
    """Each of them."""
    config = AdmissionConfig(kv_grow=0.2, kv_target=0.3, kv_soft=0.4, kv_hard=0.5)
    admission = EndpointAdmission(config, max_calls=256, max_trajectories=256)
    on_load(admission, 0.0, CALM)
    assert on_load(admission, 2.0, replace(CALM, kv_usage=0.25)) == []
    assert on_load(admission, 4.0, replace(CALM, kv_usage=0.19))[0].what == "calls"
    assert on_load(admission, 6.0, replace(CALM, kv_usage=0.45), 90)[0].after == 60
    assert on_load(admission, 12.0, replace(CALM, kv_usage=0.45), 60) == []
    assert on_load(admission, 14.0, replace(CALM, kv_usage=0.6), 60)[0].after == 30


def test_thresholds_must_be_in_order() -> None:
    """A target above the trim would trim without end."""
    with pytest.raises(ValidationError, match=r"must not fall in this order, and are 0.6, 0.85, 0.8, 0.9"):
        AdmissionConfig(kv_target=0.85)


NO_PRESSURE = HostPressure(available_memory_share=0.5, memory_stalled_share=0.0, runnable_per_core=1.0)


def test_sandboxes_follow_the_memory() -> None:
    """Little memory, or stalls for it, let fewer be leased; when it is over they come back."""
    admission = SandboxAdmission(max_leased=100, n_cores=2, adaptive=True)
    for now, pressure in enumerate([replace(NO_PRESSURE, available_memory_share=0.05)] * 3):
        admission.on_pressure(float(now), pressure, n_leased=admission.max_leased, n_waiting=9)
    assert admission.max_leased == 51
    (stalled,) = admission.on_pressure(
        9.0, replace(NO_PRESSURE, memory_stalled_share=0.2), n_leased=51, n_waiting=9
    )
    assert "wait for memory 20%" in stalled.reason
    for now in range(20, 40):
        admission.on_pressure(float(now), NO_PRESSURE, n_leased=admission.max_leased, n_waiting=9)
    assert admission.max_leased == 100


def test_busy_cores_are_no_reason_alone() -> None:
    """Cores may be busy; only where each has many tasks are fewer leased, and never below four per core."""
    admission = SandboxAdmission(max_leased=100, n_cores=2, adaptive=True)
    for now in range(50):
        admission.on_pressure(
            float(now), replace(NO_PRESSURE, runnable_per_core=5.0), n_leased=100, n_waiting=0
        )
    assert admission.max_leased == 100
    for now in range(50, 100):
        pressure = replace(NO_PRESSURE, runnable_per_core=30.0)
        admission.on_pressure(float(now), pressure, n_leased=admission.max_leased, n_waiting=9)
    assert admission.max_leased == 8


def test_unknown_pressure_changes_nothing() -> None:
    """Where the system tells nothing, the user's limit holds."""
    admission = SandboxAdmission(max_leased=10, n_cores=2, adaptive=True)
    assert admission.on_pressure(0.0, HostPressure(None, None, None), n_leased=10, n_waiting=9) == []
    assert admission.max_leased == 10


def test_the_constants_are_the_users() -> None:
    """How a cap begins, grows, falls, and how long a fall is given."""
    config = AdmissionConfig(
        first_calls=4, tokens_per_trajectory=1000, growth=3.0, cut=0.5, soft_trim_s=100.0, hard_trim_s=50.0,
        max_queued=0.1, n_polls_queued=1,
    )  # fmt: skip
    admission = EndpointAdmission(config, max_calls=256, max_trajectories=256)
    assert admission.max_calls == 4
    on_load(admission, 0.0, replace(CALM, max_kv_tokens=20_000))
    assert admission.max_trajectories == 20
    on_load(admission, 2.0, CALM)
    assert admission.max_trajectories == 60
    on_load(admission, 4.0, replace(CALM, n_preemptions=1))
    assert admission.max_trajectories == 60
    on_load(admission, 6.0, replace(CALM, n_preemptions=2), 60)
    assert admission.max_trajectories == 30
    full = replace(CALM, n_preemptions=2, kv_usage=0.85)
    assert on_load(admission, 60.0, full, 30) == []
    assert on_load(admission, 107.0, full, 30)[0].after == 24
    queued = replace(CALM, n_preemptions=2, n_running=10, n_waiting=2, n_generated_tokens=1)
    assert on_load(admission, 109.0, queued, 24)[0].what == "calls"
