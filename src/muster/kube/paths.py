"""Paths of the API server, as pure functions: the one place that knows groups, versions and plurals.

A path is a string without host and query. Every part that comes from outside is quoted, and "." and ".." are refused, so a
name out of an annotation cannot lead to another resource.
"""

from typing import Final
from urllib.parse import quote

from muster.api import names

CORE: Final = "/api/v1"
MUSTER: Final = f"/apis/{names.API_VERSION}"
SCHEDULING: Final = "/apis/scheduling.k8s.io/v1"
STORAGE: Final = "/apis/storage.k8s.io/v1"
NODE: Final = "/apis/node.k8s.io/v1"


def segment(text: str) -> str:
    """Quote one part of a path; raise ValueError for text that is not a name ("", "." and "..")."""
    if text in ("", ".", ".."):
        raise ValueError(f"{text!r} cannot be the name of an API object: give its metadata.name")
    return quote(text, safe=":")  # ":" is plain in RBAC names


def resource(
    root: str, plural: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None
) -> str:
    """Join the path of a collection (no name), an object or a subresource under `root` ("/api/v1", "/apis/GROUP/VERSION")."""
    parts = [root]
    if namespace is not None:
        parts += ["namespaces", segment(namespace)]
    parts.append(plural)
    parts += [segment(part) for part in (name, subresource) if part is not None]
    return "/".join(parts)


def pods(namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Name the pods of a namespace (of all, if None), one pod, or a subresource of it such as "binding"."""
    return resource(CORE, "pods", namespace, name, subresource)


def nodes(name: str | None = None, subresource: str | None = None) -> str:
    """Name all nodes, one, or a subresource of it."""
    return resource(CORE, "nodes", None, name, subresource)


def namespaces(name: str | None = None) -> str:
    """Name all namespaces or one."""
    return resource(CORE, "namespaces", None, name)


def services(namespace: str | None = None, name: str | None = None) -> str:
    """Name the Services of a namespace or one of them."""
    return resource(CORE, "services", namespace, name)


def podtemplates(namespace: str | None = None, name: str | None = None) -> str:
    """Name the PodTemplates of a namespace (of all, if None) or one of them."""
    return resource(CORE, "podtemplates", namespace, name)


def events(namespace: str) -> str:
    """Name the core/v1 Events of a namespace."""
    return resource(CORE, "events", namespace)


def admission(plural: str, name: str) -> str:
    """Name an object of admissionregistration.k8s.io/v1."""
    return resource("/apis/admissionregistration.k8s.io/v1", plural, None, name)


def priorityclasses() -> str:
    """Name all PriorityClasses."""
    return resource(SCHEDULING, "priorityclasses")


def dljobs(namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Name the DLJobs of a namespace (of all, if None), one of them, or its "status" or "scale"."""
    return resource(MUSTER, "dljobs", namespace, name, subresource)


def dlqueues(namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """Name the DLQueues of a namespace (of all, if None), one of them, or its "status"."""
    return resource(MUSTER, "dlqueues", namespace, name, subresource)


def leases(namespace: str, name: str | None = None) -> str:
    """Name the Leases of a namespace or one of them."""
    return resource("/apis/coordination.k8s.io/v1", "leases", namespace, name)
