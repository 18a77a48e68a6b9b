"""Policy gandiva, as in the paper (OSDI'18, sections 3 and 4).

policy      a reactive and an introspective pass
turns       time slices: weighted round-robin among gangs on the same GPUs
migration   moving gangs off crowded nodes, towards each other, away from interference, off half-empty nodes
elasticity  growing to GPUs that stay idle, shrinking at once when others need them
"""
