"""Offline: trajectories in, numbers out. The command is `python -m scoring`."""
