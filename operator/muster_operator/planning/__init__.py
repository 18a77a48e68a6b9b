"""Planning: all gangs of all controllers at once.

    planning   one plan: take a snapshot, ask the planner, have its decisions carried out, report
    snapshot   from stores and controllers to the snapshot that the planner sees
    executors  one executor a verb: from a decision to the writes that carry it out

The placements and evictions of a plan are all written before the next plan reads the stores, which have the API server's
answers: no plan sees a GPU as free that an earlier one gave away.
"""
