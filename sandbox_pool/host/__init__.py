"""What this machine offers a pool: what it enforces, how much fits, control groups, uids, scratch folders."""
