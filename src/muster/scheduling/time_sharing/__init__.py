"""Time sharing: which gangs run now, of those that may be suspended, packed or resized.

rank      where a gang stands: how long it ran, whether it waited too long
gittins   how soon a gang may be expected to end
claims    which gangs get which GPUs, in the order of rank
knapsack  which gangs of equal rank start together
"""
