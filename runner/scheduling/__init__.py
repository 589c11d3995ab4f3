"""Many trajectories at once: when attempts begin, how often they are tried, when the run pauses."""
