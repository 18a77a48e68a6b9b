"""The verbs that this distribution adds to `muster`, by its entry points."""

from __future__ import annotations

from typing import Final

from muster.cli.verbs import Verb

DEMO: Final = Verb("muster on a real control plane, shown in a few minutes", "muster_dev.cli.demo", "muster-dev")
KIND: Final = Verb(
    "muster in a kind cluster on this machine, installed by helm: up, down, status, run, images",
    "muster_dev.cli.kind",
    "muster-dev",
)
LOCAL: Final = Verb(
    "a real Kubernetes control plane on this machine, without Docker: up, down, status, kubeconfig",
    "muster_dev.cli.local",
    "muster-dev",
)
