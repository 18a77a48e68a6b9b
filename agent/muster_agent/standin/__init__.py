"""A stand-in for the driver and /sys of a machine type, for nodes that have no GPUs.

`muster local` nodes are objects without a machine; the agent publishes their topology by the same reading code as on real
nodes, over this. `hardware` lays out a machine that would print the recorded link table, `library` answers for it in place
of libnvidia-ml, `tree` writes its /sys. Nothing here knows how the agent reads.
"""
