"""The controllers of the operator, in one list: a new kind of object is registered here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from muster_operator.controller import Context, Controller
from muster_operator.dljob.controller import DLJobs
from muster_operator.dlqueue.controller import DLQueues
from muster_operator.external_pods.controller import ExternalPods
from muster_operator.resource_quotas.controller import ResourceQuotas


def controllers(context: Context) -> Sequence[Controller]:
    """Return every controller; they subscribe to their stores, so call it once, before anything is watched."""
    return (DLJobs(context), DLQueues(context), ExternalPods(context), ResourceQuotas(context))
