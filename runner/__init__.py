"""Online: samples in, trajectories out. The command is `python -m runner`."""
