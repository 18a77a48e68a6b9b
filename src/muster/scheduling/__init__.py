"""The scheduling core: decisions about gangs and GPUs as pure functions of values.

Nothing here reads a clock, does I/O, draws a random number without a seed, or knows Kubernetes; import-linter holds it to
that. Operator, extender and simulator translate what they see into a `Snapshot`, ask the `Planner`, and carry its decisions
out.

Values, from the ground up
    resources    CPU, memory, pods, parts of GPUs
    memo         answers that are worked out once for each key
    topology/    GPU links, machine types, nodes, the fleet
    gang         gangs, tasks, placements
    profile      what was measured of a kind of gang
    snapshot     the cluster as a value: nodes, gangs, queues, profiles
    decisions    what the planner answers: a class a verb
    settings     what an administrator may choose, and what the caller can execute

One pass
    planner        reactive and introspective passes; the contract with callers
    session        the cluster during a pass: free capacity, occupancy, quotas, decisions
    queue_order    the order of waiting gangs
    occupancy      which gang is where, and which gangs meet
    quotas         GPUs that queues hold and reserve
    gang_index     gangs by what a pass asks of them, kept up to date by what changed
    planner_cache  what passes leave for those after them

By topic
    placing/       where a gang goes: search, free capacity, fragmentation, interference
    speed/         how fast a gang will be on a placement: measured, learned, or from a prior
    admission/     whole gangs, in queue order: backfill, preemption
    time_sharing/  ranks, the Gittins index, claims
    elastic/       shares of elastic gangs, and what is reclaimed from them
    packing/       several gangs on the same GPUs
    rebalancing/   moves that make gangs faster
    policies/      which of these when: ours (`muster`), and the paper's (`gandiva`)

A set of GPUs of one node is an int used as a bit set: bit i is GPU i.
"""
