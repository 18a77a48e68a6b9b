"""The DLJob controller: gangs of muster's own, from submission to their end.

controller      the front door: what the loop and planning ask of it
watch           the DLJobs as last read, their pods, and what a change marks
job             a DLJob as the operator keeps it
decoding        from JSON to a job, or to what is wrong with it; amounts: which of them can be read
unreadable      what a DLJob is told that this version cannot read
completion      pure: a job with what admission plugins add to its pods
gang            pure: a job as the gang that the planner sees, and its placement as the status has it
rests           when jobs that back off may start again, and since when gangs start, by this process's clocks
leftovers       pure: what has the names of a job and is not its own
placement_check pure: whether the placement in a status can be the job's own
lifecycle       pure: from a job and its pods to the next step of its life; step: what that is, and how pods are stopped
faults          pure: what has gone wrong with the pods of a gang, and whether its program is to blame
starting        pure: when a start has failed, and what that teaches
status          pure: what happens to a job, as its status says it; status_edit: how one edit is made
status_writer   writes an edited status, and posts Events
manifests       pure: the pods and the Service of a placed gang
rendezvous      pure: how the processes of a gang find each other
reconcile       carries a step of the lifecycle out
template_check  asks the API server about the pod templates of new jobs
resize_check    asks the API server about the pods that a resize adds
templates       reads pod templates for as long as pods are made of them
telling         what a job's status is to say of why it waits
resources       the resources that only this controller reads
"""
