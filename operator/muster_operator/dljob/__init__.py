"""The DLJob controller: gangs of muster's own, from submission to their end.

controller     the front door: what the loop and planning ask of it
watch          the DLJobs as last read, their pods, and what a change marks
job            a DLJob, decoded; and as the gang that the planner sees
completion     pure: a job with what admission plugins add to its pods
leftovers      pure: what has the names of a job and is not its own
lifecycle      pure: from a job and its pods to the next step of its life
status         pure: edits of a job's status: conditions, timeline, back-off
status_writer  writes an edited status, and posts Events
manifests      pure: the pods and the Service of a placed gang
rendezvous     pure: how the processes of a gang find each other
reconcile      carries a step of the lifecycle out
template_check asks the API server about the pod templates of new jobs
resize_check   asks the API server about the pods that a resize adds
templates      reads pod templates for as long as pods are made of them
telling        what a job's status is to say of why it waits
resources      the resources that only this controller reads
"""
