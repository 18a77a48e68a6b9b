"""How fast a gang trains on a placement.

rates          the expected rate of a placement: measured, learned, or from a prior
step_time      the law of step time by GPUs and links
interference   the loss to neighbours
shapes         the shape of a placement
"""
