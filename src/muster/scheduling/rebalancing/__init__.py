"""Rebalancing: running gangs go where the GPUs make most of them.

local_search  moves to idle GPUs, and changes between two sets of GPUs, as long as they gain
swap          what changes between two sets of GPUs gain
cost          what a move costs, and when it pays
"""
