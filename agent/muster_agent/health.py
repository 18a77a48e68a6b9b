"""GPU health: a GPU is unhealthy while it shows any symptom of broken hardware.

Symptoms: the driver cannot reach the GPU; a critical XID that is not an application error (the list of NVIDIA's device
plugin); a failed row remapping; and, on GPUs without spare rows, an uncorrected memory error since the driver was loaded.
Invariant: an XID counts until the agent restarts, since only a reset clears its cause; a value that the driver does not report
is not a symptom.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from muster_agent.nvml import Nvml

log = logging.getLogger(__name__)


def trouble(lost: bool, xid: int | None, row_remap_failed: bool | None, uncorrected_errors: int | None) -> str | None:
    """Return the reason why a GPU is unhealthy, None if it is healthy."""
    if lost:
        return "the driver cannot reach it"
    if xid is not None:
        return f"XID {xid}"
    if row_remap_failed:
        return "a broken memory row could not be remapped"
    if row_remap_failed is None and uncorrected_errors:
        return f"{uncorrected_errors} uncorrected memory errors"
    return None


class HealthMonitor:
    """Keeps the XIDs of a node's GPUs and logs each change of health once."""

    def __init__(self) -> None:
        self._xids: dict[int, int] = {}
        self._troubles: dict[int, str] = {}

    def check(self, nvml: Nvml, gpus: Sequence[int]) -> dict[int, str]:
        """Return the reason for each unhealthy GPU."""
        for gpu, xid in nvml.critical_xids(gpus):
            self._xids.setdefault(gpu, xid)
        reasons = {gpu: self._trouble(nvml, gpu) for gpu in gpus}
        troubles = {gpu: reason for gpu, reason in reasons.items() if reason is not None}
        self._log_changes(troubles)
        return troubles

    def _trouble(self, nvml: Nvml, gpu: int) -> str | None:
        remap, errors = nvml.row_remap_failed(gpu), nvml.uncorrected_errors(gpu)
        return trouble(nvml.lost(gpu), self._xids.get(gpu), remap, errors)

    def _log_changes(self, troubles: dict[int, str]) -> None:
        for gpu in troubles.keys() - self._troubles.keys():
            log.warning("GPU %d is unhealthy: %s", gpu, troubles[gpu])
        for gpu in self._troubles.keys() - troubles.keys():
            log.info("GPU %d is healthy again", gpu)
        self._troubles = troubles
