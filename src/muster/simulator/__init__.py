"""Discrete-event simulation of a scheduling policy on a GPU cluster: days of training in seconds.

The simulator calls the scheduling core exactly as the operator does, and carries out its decisions on a simulated cluster. The
truth about a job (`Job`, `Physics`) is kept apart from what a policy sees (`Snapshot`: names, requests, measured rates).

    scenario       a run described in YAML: cluster, job source, physics, policy
    registry       the job sources, physics and policies that a scenario can name, one line each
    plugin_fields  the scenario fields of a registry entry, derived from its builder's parameters
    yaml_errors    input errors with file, line and field
    assembly       a Simulation built from a scenario
    traces/        job sources: recorded traces and seeded generators
    jobs           a job with its true amount of work
    physics/       training rates by placement, and the cost of a move
    policies/      muster's planner and the schedulers it is compared with
    cluster        nodes and gangs after the decisions so far
    engine         the event loop: arrivals, completions, planning passes
    checked        a policy whose answers are checked: invariants of one answer, outcome of its decisions
    records        counters and rows of a run
    report         the metrics of a run; fragmentation: the fraction of free GPUs that no job can use
    timeline       a chart of a run
    dump           a live cluster saved to a file
    whatif         muster's decisions for a dump, and a simulation from there
"""
