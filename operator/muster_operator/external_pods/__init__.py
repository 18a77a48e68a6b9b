"""The controller of external pods: GPU pods of Jobs, JobSets, PyTorchJobs or users, which muster did not create.

    controller     the front door: gangs for the planner, ungating, telling pods why they wait
    gangs          pure: gated pods as gangs, ungated pods as what they hold
    membership     pure: who of a labelled gang has done its part, and what keeps a gang from being planned
    ungating       pure: the patch that ungates a pod, the reservation that makes many such patches safe
    requeue        gangs that cannot start: deleted, and their bare pods created again
    failed_starts  pure: why a gang did not start, and what that teaches, as an annotation
    starts         since when pods start, and what gangs have learnt that a controller is creating again
    templates      pure: a parked bare pod, as a PodTemplate and as a pod again

The gate muster.dev/gang holds such a pod until its gang is placed. One patch a pod removes the gate and pins the pod.
"""
