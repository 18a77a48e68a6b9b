"""Where a gang goes.

placement       nodes and GPUs for each task, or what is missing
search          one gang's search: levels, domains, nodes, GPUs
batches         its tasks by what they ask for
taking          how many of them a node takes
room            what is free during one plan
fragmentation   what a placement leaves unusable to those who come (`demand`)
quiet           a place away from neighbours, where they would cost more
shortage        what keeps a gang out, in a sentence
"""
