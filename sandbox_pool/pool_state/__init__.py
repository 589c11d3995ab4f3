"""Which sandbox to start, hand out and retire. Pure: events and times in, decisions out."""

from sandbox_pool.pool_state.decisions import Decision, HandOut, Kind, Refuse, Retire, Start
from sandbox_pool.pool_state.state import PoolState

__all__ = ["Decision", "HandOut", "Kind", "PoolState", "Refuse", "Retire", "Start"]
