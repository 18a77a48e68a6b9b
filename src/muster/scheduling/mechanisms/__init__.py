"""Gandiva's mechanisms (OSDI'18, section 3), each a pure decision with its reason.

    board       the cluster during one pass: where every gang is, as the decisions so far leave it
    turns       time-slicing: who runs in the next slice, by weighted virtual time, over all nodes of a gang at once
    filling     which of several gangs that promise alike start together
    packing     several gangs on one GPU where their measured rates together beat taking turns, undone where they do not
    migration   moving gangs: towards each other, away from interference, off half-empty servers, onto idle GPUs
    usage       gangs where the GPUs make most of them: moves, pairs and exchanges (`sites`, and in `exchange` what they gain)
    elasticity  growing to GPUs that stay idle, shrinking at once when they are needed

A mechanism looks at the board, puts its decisions on it, and knows nothing of the others; `policies` says which are used when.
"""
