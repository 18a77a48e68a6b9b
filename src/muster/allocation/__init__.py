"""Who holds which GPUs: the one answer that the operator and the extender share, worked out from API objects.

    holding       a value: what one task holds on one node, with its share of each GPU
    ledger        all holdings by node and task; what they leave free
    pods          a pod as the core sees it: requests, constraint, pin, holding
    trust         what counts of a pod's own words, and for how long
    vouching      whether the API server keeps others from writing muster's own names
    nodes         a node as the core sees it: machine type, healthy GPUs, resources
    reservations  the GPUs that DLJobs' placements reserve, and for which attempt of which job
    view          the stores of nodes, pods and DLJobs, and the ledger that follows them
    claims        what is free to one particular pod, by the right that it has

Layers: operator, extender, agent -> allocation -> kube. `muster.kube` speaks to the API server and knows no GPUs; the core
(`muster.scheduling`) knows no API objects; the translation between the two is here and nowhere else.
"""
