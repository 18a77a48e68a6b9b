"""Where a gang goes.

placement               nodes and GPUs for each task, or what is missing
search                  the search of one gang: levels, domains, nodes, GPUs
batches                 its tasks by what they ask for, and how many of them a node takes
free_capacity           what is free during one pass
fit                     whether a placement still fits
fragmentation           what a placement leaves unusable to the tasks to come (`demand`)
interference_avoidance  a placement away from neighbours, where they would cost more
"""
