"""Where a gang goes.

placement       nodes and GPUs for each task, or what is missing
search          one gang's search: levels, domains, nodes, GPUs
room            what is free during one plan
fragmentation   what a placement leaves unusable to those who come
quiet           a place away from neighbours, where they would cost more
shortage        what keeps a gang out, in a sentence
"""
