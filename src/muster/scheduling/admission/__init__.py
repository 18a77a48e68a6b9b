"""Whole-gang admission: which waiting gangs start now, and what a waiting gang reserves.

admission   one pass over the gangs, in queue order
backfill    what later gangs may have while earlier ones wait
resizing    a new size that moves no task
preemption  which gangs of lower priority make way
"""
