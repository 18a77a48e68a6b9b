"""The development bed: real clusters on one machine to develop, test and show muster.

A separate distribution, so that nothing of it is installed in a cluster. It adds the verbs local, kind and demo to `muster`.
"""
