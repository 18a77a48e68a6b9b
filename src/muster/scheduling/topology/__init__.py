"""Nodes and the links between their GPUs.

links         the bandwidth of GPU links, and of the best ring through a set of GPUs
machine       machine types: the best GPUs of each free set for each request
node          one node: its GPUs, its rack and block, its free capacity
network       the bandwidth between nodes
eligibility   which nodes a task may use (selectors, affinity, taints)
fleet         what stays the same of all nodes from pass to pass
"""
