"""Elastic gangs: those that can run with more or fewer workers.

shares    how many GPUs each elastic gang has, by how much it makes of them
speed_up  what more GPUs make of a gang, from measured rates
reclaim   what elastic gangs have beyond what they asked for, for gangs that wait
"""
