"""Nodes and the links between their GPUs.

links         what a link between two GPUs carries, and the best ring through a set of them
machine       a machine type: its link matrix compiled into the best GPUs for each free set and request
node          one node: its GPUs, where it stands, what is free on it
network       what is carried between servers
eligibility   which nodes a task may go to (selectors, affinity, taints)
fleet         what of the nodes stays the same from pass to pass
"""
