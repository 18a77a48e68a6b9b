"""The DLQueue controller: quotas for the planner, and each queue's status.

controller  what a change marks; writes the status after each plan
usage       pure: quotas from specs; the status of a queue from its gangs
"""
