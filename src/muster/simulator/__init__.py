"""The simulator: what a policy would do to a cluster and its jobs, in seconds instead of days.

It drives the scheduling core through the very calls that the operator makes, and answers as a cluster would. What is true of
a job (`Job`, `Physics`) is kept apart from what a policy sees (`Snapshot`: names, requests, measured rates).

    scenario    what to simulate, read from YAML: a cluster, a source of jobs, physics, a policy
    registry    what a scenario can name; a new trace, physics or policy is a line there
    choices     how a line there becomes fields of a scenario
    located     what users write, and where: complaints with file, line and field
    assembly    a simulation made of a scenario
    traces/     job sources: recorded traces and generators with a seed
    jobs        a job as it truly is
    physics/    how fast a job trains where it is, and what moving it costs
    policies/   muster's planner, and the schedulers that it is measured against
    cluster     who is where: what the decisions made of the nodes
    engine      discrete events: arrivals, completions, passes
    checked     a policy under watch: promises has the rules of a single answer, outcome what it makes of the cluster
    records     what happened
    report      the figures made of it; with fragmentation, the share of free GPUs that nobody can use
    timeline    a picture of it
    dump        a live cluster as a file
    whatif      what muster would do with it now, and how it could go on
"""
