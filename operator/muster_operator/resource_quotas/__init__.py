"""ResourceQuotas of Kubernetes, for the planner: it counts whole gangs in them before their pods exist.

controller  which pods there are in namespaces with quotas; when quota comes free
counting    pure: a ResourceQuota as the planner sees it, with all that is used or promised
"""
