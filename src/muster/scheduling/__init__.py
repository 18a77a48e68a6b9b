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

Whose turn it is
    admission      whole gangs, in turn, with the room that is left for each
    queueing       order, quotas, and what may overtake
    memory         what a pass leaves for the next one
    census         which gangs wait, run, or wish something, by what changed since
    places         who has a place where, by what changed since
    prospects      how soon a gang may be expected to end
    standing       how long it ran or waited, as ranks count it
    sweeps         which trials of a sweep run, wait or stop

The rooms behind, from the nodes up
    topology/      nodes and what joins their GPUs
    speed/         how fast a gang will be on a placement: measured, learned, or from a prior
    placing/       where a gang goes: rooms, search, fragmentation, neighbours
    mechanisms/    Gandiva's, each a decision by itself: turns, packing, migration, elasticity, and ours
    policies/      which mechanism when: the paper's policy, and muster's

A set of GPUs of one node is an int used as a bit set: bit i is GPU i.
"""
