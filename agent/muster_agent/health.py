"""Which GPUs can be given work: a GPU is unhealthy while any sign of broken hardware stands.

The signs: the driver cannot reach it; a critical XID that is not the application's own fault (the list of NVIDIA's device
plugin); a broken memory row without a spare; and on GPUs without spare rows, an uncorrected memory error since the driver
was loaded. Invariant: an XID counts until the agent starts anew, since only a reset clears its cause; what the driver will
not tell is no sign.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from muster_agent.nvml import Nvml

log = logging.getLogger(__name__)


def trouble(lost: bool, xid: int | None, row_remap_failed: bool | None, uncorrected_errors: int | None) -> str | None:
    """Return why a GPU is unhealthy, None if it is healthy."""
    if lost:
        return "the driver cannot reach it"
    if xid is not None:
        return f"XID {xid}"
    if row_remap_failed:
        return "a broken memory row could not be replaced"
    if row_remap_failed is None and uncorrected_errors:
        return f"{uncorrected_errors} uncorrected memory errors"
    return None


class Watch:
    """Remembers the XIDs of a node's GPUs and logs each change of health once."""

    def __init__(self) -> None:
        self._xids: dict[int, int] = {}
        self._troubles: dict[int, str] = {}

    def look(self, nvml: Nvml, gpus: Sequence[int]) -> dict[int, str]:
        """Return what is wrong with each unhealthy GPU."""
        for gpu, xid in nvml.critical_xids(gpus):
            self._xids.setdefault(gpu, xid)
        found = {gpu: self._ask(nvml, gpu) for gpu in gpus}
        troubles = {gpu: reason for gpu, reason in found.items() if reason is not None}
        self._log_changes(troubles)
        return troubles

    def _ask(self, nvml: Nvml, gpu: int) -> str | None:
        remap, errors = nvml.row_remap_failed(gpu), nvml.uncorrected_errors(gpu)
        return trouble(nvml.lost(gpu), self._xids.get(gpu), remap, errors)

    def _log_changes(self, troubles: dict[int, str]) -> None:
        for gpu in troubles.keys() - self._troubles.keys():
            log.warning("GPU %d is unhealthy: %s", gpu, troubles[gpu])
        for gpu in self._troubles.keys() - troubles.keys():
            log.info("GPU %d is healthy again", gpu)
        self._troubles = troubles
