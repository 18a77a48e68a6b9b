"""The scheduling core: decisions about gangs and GPUs as pure functions of values.

Nothing here reads a clock, does I/O, draws a random number without a seed, or knows Kubernetes; import-linter holds it to
that. Operator, extender and simulator translate what they see into a `Snapshot`, call `plan`, and carry out what it says.

    links      what a way between two GPUs carries, and the best ring through a set of them
    machine    a machine type: its link matrix compiled into the best GPUs for each free set and request
    snapshot   the cluster as a value: nodes, gangs, queues
    eligibility which nodes a task may go to (selectors, affinity, taints)
    placement  where a gang goes: nodes and GPUs for each task, or what is missing
    ledger     who holds which GPUs of which node, kept up to date by single changes
    queueing   whose turn it is: order, quota, and what may overtake
    planner    plan(snapshot, now, settings) -> decisions
    decisions  what the planner answers, each with its reason

A set of GPUs of one node is an int used as a bit set: bit i is GPU i.
"""
