"""A run on the nodes of a Ray cluster: a worker with a scheduler and a sandbox pool on each.

The driver hands out attempts, takes what came of them, and is the only writer of the run directory.
`coordinator` decides, `intake` writes what workers send, `run` drives all and `serving` each; `worker`,
`outbox` and `remote_journal` are the other end; `ray_cluster` and `ray_worker` are all that knows Ray.
"""
