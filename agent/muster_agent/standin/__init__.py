"""A stand-in for the driver and /sys of a machine type, for nodes without GPUs.

Nodes of `muster local` are objects without a machine; the agent reads their topology from this stand-in with the code for real
nodes. `hardware` constructs a machine consistent with the recorded link table, `library` replaces libnvidia-ml for it, and
`tree` writes its /sys. Nothing here depends on how the agent reads.
"""
