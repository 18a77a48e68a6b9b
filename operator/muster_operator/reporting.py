"""What the operator tells people: Events about objects, and failures as a log line, a metric and an Event about itself."""

from __future__ import annotations

import logging
import os

from muster.api import names
from muster.kube.errors import Forbidden, KubeError
from muster.kube.events import EventType, Recorder, Reference
from muster.kube.objects import Meta
from muster_operator import metrics

log = logging.getLogger("muster.operator")


class Reporter:
    """Tells people through a Recorder; a courtesy, so nothing here raises."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def event(self, about: Reference, type: EventType, reason: str, message: str) -> None:
        """Post an Event about an object."""
        self._recorder.event(about, type, reason, message)

    def failed(self, what: str, error: Exception) -> None:
        """Count and log what failed and will be tried again; report a missing right about the operator's own pod."""
        metrics.ERRORS.inc()
        log.warning("%s: %s; tries again", what, error, exc_info=None if isinstance(error, KubeError) else error)
        if isinstance(error, Forbidden) and (me := own_pod()):
            self.event(me, "Warning", "Forbidden", error.message)


def about(kind: str, meta: Meta) -> Reference:
    """Return the reference to one of muster's own objects."""
    return Reference(names.API_VERSION, kind, meta.name, meta.namespace or "", meta.uid)


def about_pod(meta: Meta) -> Reference:
    """Return the reference to a pod."""
    return Reference("v1", "Pod", meta.name, meta.namespace or "", meta.uid)


def own_pod() -> Reference | None:
    """Return the pod that this process runs in, by the environment that the chart sets; None elsewhere."""
    name, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    return Reference("v1", "Pod", name, namespace, os.environ.get("POD_UID", "")) if name and namespace else None
