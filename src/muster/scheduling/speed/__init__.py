"""How fast a gang will be on a placement.

rates          what to expect of a placement: measured, learned, or from a prior
step_time      the law of a step by GPUs and links
interference   what neighbours cost
shapes         what of a placement decides its rate
"""
