"""The operator: it owns DLJobs, admits gangs whole, and carries out what the scheduling core decides.

    election    of several operators one decides: the holder of a Lease
    definitions pure, and waiting: does the API server know our kinds as they are written here?
    endpoints   /metrics, /healthz, /readyz
    listeners   kopf: what happens to DLJobs and DLQueues goes into the stores, and rings the bell
    controller  the one loop: reconcile what changed, then one plan over everything, then rest
    desk        the jobs as last read, what has changed, the work under way
    steps       single jobs: carries out what lifecycle says, checks the templates of new ones
    planning    all jobs: snapshot, plan, and the writes that carry it out
    foreign     the same for pods that muster did not create
    requeue     gangs of such pods that cannot start: taken back, and bare ones created again
    jobs        a DLJob as the operator reads it, and as the gang that the planner sees
    lifecycle   pure: from a job and its pods to the next step of its life
    record      pure: edits of a job's status: conditions, timeline, back-off
    manifests   pure: the pods and the Service of a placed gang
    rendezvous  pure: how the processes of a gang find each other
    gates       pure: gated pods of others as gangs, and the patch that lets one go
    templates   pure: a bare pod that was taken back, as a PodTemplate and as a pod again
    hands       all writing to the API server
    stores      all that is watched
    sight       says so when something cannot be watched any more

State is in the API objects alone: a placement is written to status before a pod exists, and whoever starts again reads it
there. Data flows one way: stores -> plan -> hands -> API server -> stores.
"""
