"""How fast a gang will be where it goes.

rates          what to expect of a placement: measured, learned, or from a prior
steptime       the law of a step by GPUs and links
interference   what neighbours cost
occupancy      who meets whom, and the shape of a placement
"""
