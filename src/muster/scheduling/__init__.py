"""The scheduling core: decisions about gangs and GPUs as pure functions of values.

Nothing here reads a clock, does I/O, draws a random number without a seed, or knows Kubernetes; import-linter holds it to
that. Operator, extender and simulator translate what they see into a `Snapshot`, ask the `Planner`, and carry out what it says.

What goes in and comes out
    snapshot       the cluster as a value: nodes, gangs, queues, what was measured
    profile        what was measured of a kind of gang
    decisions      what the planner answers, each with its reason
    settings       what an administrator may choose
    planner        reactive and introspective passes, with a memory of the last one
    ledger         who holds which GPUs of which node, kept up to date by single changes

Links and nodes
    links          what a way between two GPUs carries, and the best ring through a set of them
    machine        a machine type: its link matrix compiled into the best GPUs for each free set and request
    network        what is carried between servers
    eligibility    which nodes a task may go to (selectors, affinity, taints)
    fleet          what of the nodes stays the same from pass to pass

Where a gang goes
    placement      nodes and GPUs for each task, or what is missing
    search         one gang's search: levels, domains, nodes, GPUs
    room           what is free during one plan
    fragmentation  what a placement leaves unusable to those who come
    shortage       what keeps a gang out, in a sentence

How fast it will be there
    rates          what to expect of a placement: measured, learned, or from a prior
    steptime       the law of a step by GPUs and links
    interference   what neighbours cost
    quiet          a place away from neighbours, where they would cost more
    occupancy      who meets whom, and the shape of a placement

Whose turn it is
    admission      whole gangs, in turn, with the room that is left for each
    queueing       order, quotas, and what may overtake
    memory         what a pass leaves for the next one
    prospects      how soon a gang may be expected to end
    mechanisms/    Gandiva's, each a decision by itself: turns, packing, migration, elasticity, and ours
    policies/      which mechanism when: the paper's policy, and muster's
    sweeps         which trials of a sweep run, wait or stop

A set of GPUs of one node is an int used as a bit set: bit i is GPU i.
"""
