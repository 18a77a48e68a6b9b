"""The operator: it owns DLJobs, admits whole gangs, and carries out what the scheduling core decides.

Composition
    __main__       what runs, with which settings
    registration   the list of controllers
    loop           the one loop: reconcile what is marked, plan if a plan is due, wait
Planning
    planning/      all gangs at once: snapshot, plan, one executor a verb
Controllers
    controller     what a controller is to the loop and to planning
    dljob/         DLJobs: gangs of muster's own
    dlqueue/       DLQueues: quotas and their use
    resource_quotas/ ResourceQuotas of namespaces, in which whole gangs are counted
    external_pods/ GPU pods that muster did not create
What all of them use
    work_queue     which objects to reconcile, what is in flight, when to plan
    api_writer     the one writer to the API server
    storage/       what volumes ask of nodes: claims, volumes, classes of storage
    stores         a store for each resource that is watched; resources: paths and types
    defaults       what admission plugins add to pods: LimitRanges, RuntimeClasses
    reporting      Events and failures, told to people
    pinning, backoff, timestamps   pure helpers
The process
    election       of several operators one leads: the holder of a Lease
    crd_check      waits until the API server knows muster's definitions as they are written here
    listeners      kopf: feeds the store of DLQueues
    watch_health   reports a resource that cannot be watched
    endpoints, metrics   /metrics, /healthz, /readyz

Imports go one way: __main__, loop -> planning -> controllers -> work_queue, api_writer, stores. State is in the API objects
alone: a placement is written to status before a pod exists, and an operator that restarts reads it there. Data flows one way:
stores -> plan -> api_writer -> API server -> stores.

A new kind, a DLSweep say, is a folder of its own: `class DLSweeps(Controller)` with `kind = "DLSweep"`. It asks for its store
(`context.stores.of(Resource(paths.MUSTER, "dlsweeps", DLSweep))`), whereby the resource is watched. It marks sweeps that have
changed, and those whose DLJobs have. Its `reconcile` starts the work that creates, suspends or deletes DLJobs (the trials) and
writes the sweep's status through the api_writer. Trials are planned as DLJobs, so planning never hears of sweeps. The one
change outside the folder is a line in `registration`.
"""
