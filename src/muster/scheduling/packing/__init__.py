"""Packing: several gangs on the same GPUs at once.

bundles  gangs that share their GPUs, and take their turns as one
packing  whether packing pays, by measured rates; packing and unpacking
"""
