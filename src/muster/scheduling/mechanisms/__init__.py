"""Gandiva's mechanisms (OSDI'18, section 3) and ours, each a pure decision with its reason.

    board       the cluster during one pass: where every gang is, as the decisions so far leave it (`places`)
    turns       time-slicing: who runs in the next slice, by weighted round-robin, over all nodes of a gang at once
    packing     several gangs on one GPU where their measured rates together beat taking turns, undone where they do not
    migration   moving gangs: towards each other, away from interference, off half-empty servers, onto idle GPUs
    elasticity  growing to GPUs that stay idle, shrinking at once when they are needed

    filling     which of several gangs that promise alike start together
    surplus     what elastic gangs have beyond what they asked for, for those that wait
    usage       gangs where the GPUs make most of them: moves, pairs and exchanges (`sites`, and in `exchange` what they gain)
    shares      elastic gangs that share GPUs by how much they make of them (`speed_up`; `changes` carries it out)

A mechanism looks at the board, puts its decisions on it, and knows nothing of the others; `policies` says which are used when.
"""
