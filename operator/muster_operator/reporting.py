"""What the operator tells people: Events about objects, and failures as a log line, a metric and an Event about itself."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from muster.api import names
from muster.kube.errors import Forbidden, KubeError
from muster.kube.events import EventType, Recorder, Reference
from muster.kube.objects import Meta
from muster_operator import metrics

log = logging.getLogger("muster.operator")

MOST_REMEMBERED = 10_000
"""Faults whose traceback has been logged; of more than these, the oldest are logged again."""


class Reporter:
    """Tells people through a Recorder; a courtesy, so nothing here raises."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._logged: OrderedDict[tuple[str, str], None] = OrderedDict()

    def event(self, about: Reference, type: EventType, reason: str, message: str, occurrence: datetime | None = None) -> None:
        """Post an Event about an object: a state once in a while, something that happened each time it did."""
        self._recorder.event(about, type, reason, message, occurrence)

    def failed(self, what: str, error: Exception) -> None:
        """Count and log what failed and will be tried again; report a missing right about the operator's own pod.

        A fault of muster's own is logged with its traceback, once for each object and error, however often it is tried.
        """
        metrics.ERRORS.inc()
        if isinstance(error, KubeError):
            log.warning("%s: %s; tries again", what, error)
        elif self._is_news(what, error):
            log.error("%s: %s; tries again, and logs this once", what, in_words(error), exc_info=error)
        if isinstance(error, Forbidden) and (me := own_pod()):
            self.event(me, "Warning", "Forbidden", error.message)

    @contextmanager
    def contained(self, what: str, about: Reference | None = None) -> Iterator[None]:
        """Keep an exception within the block: report it, and post it about the object that it concerns."""
        try:
            yield
        except Exception as error:
            self.failed(what, error)
            if about is not None:
                self.event(about, "Warning", "InternalError", f"{what}: {in_words(error)}")

    def _is_news(self, what: str, error: Exception) -> bool:
        said = (what, in_words(error))
        is_news = said not in self._logged
        self._logged[said] = None
        if len(self._logged) > MOST_REMEMBERED:
            self._logged.popitem(last=False)
        return is_news


def in_words(error: Exception) -> str:
    """Return an exception's class and message, in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def about(kind: str, meta: Meta) -> Reference:
    """Return the reference to one of muster's own objects."""
    return Reference(names.API_VERSION, kind, meta.name, meta.namespace or "", meta.uid)


def about_pod(meta: Meta) -> Reference:
    """Return the reference to a pod."""
    return Reference("v1", "Pod", meta.name, meta.namespace or "", meta.uid)


def about_node(name: str) -> Reference:
    """Return the reference to a node; kubectl finds its Events by its name in place of a uid, as the kubelet writes them."""
    return Reference("v1", "Node", name, "", name)


def own_pod() -> Reference | None:
    """Return the pod that this process runs in, by the environment that the chart sets; None elsewhere."""
    name, namespace = os.environ.get("POD_NAME"), os.environ.get("POD_NAMESPACE")
    return Reference("v1", "Pod", name, namespace, os.environ.get("POD_UID", "")) if name and namespace else None
