from __future__ import annotations

import ctypes
import logging
from typing import Any

import pytest

from agent.conftest import Install, override
from muster_agent.health import HealthMonitor, trouble
from muster_agent.nvml import Nvml

XID_EVENT = 8


@pytest.mark.parametrize(
    ("lost", "xid", "remap", "errors", "reason"),
    [
        (False, None, False, 0, None),
        (False, None, None, None, None),  # a GPU without data has no symptom
        (True, None, None, None, "the driver cannot reach it"),
        (False, 79, False, 0, "XID 79"),
        (False, None, True, 0, "a broken memory row could not be remapped"),
        (False, None, False, 5, None),  # remapped to spare rows
        (False, None, None, 5, "5 uncorrected memory errors"),  # no spare rows
    ],
)
def test_symptoms_of_an_unhealthy_gpu(
    lost: bool, xid: int | None, remap: bool | None, errors: int | None, reason: str | None
) -> None:
    assert trouble(lost, xid, remap, errors) == reason


def events(*waiting: tuple[int, int, int]) -> Any:
    """A queue of (GPU, kind, XID) behind nvmlEventSetWait_v2."""
    queue = list(waiting)

    def wait(_events: Any, data: Any, _milliseconds: Any) -> int:
        if not queue:
            return 10
        gpu, kind, xid = queue.pop(0)
        ctypes.c_void_p.from_buffer(data._obj).value = gpu + 1  # the device is the first field
        data._obj.eventType, data._obj.eventData = kind, xid
        return 0

    return wait


def test_xids_count_until_the_agent_restarts(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    library = install("c4140")
    override(library, nvmlEventSetWait_v2=events((1, XID_EVENT, 79), (3, XID_EVENT, 48), (1, XID_EVENT, 94)))
    monitor = HealthMonitor()
    with Nvml() as nvml:
        assert monitor.check(nvml, range(4)) == {1: "XID 79", 3: "XID 48"}
        assert monitor.check(nvml, range(4)) == {1: "XID 79", 3: "XID 48"}
    assert [r.getMessage() for r in caplog.records] == ["GPU 1 is unhealthy: XID 79", "GPU 3 is unhealthy: XID 48"]


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_application_xids_are_ignored(xid: int, install: Install) -> None:
    override(install("c4140"), nvmlEventSetWait_v2=events((0, XID_EVENT, xid), (2, XID_EVENT, 95)))
    with Nvml() as nvml:
        assert HealthMonitor().check(nvml, range(4)) == {2: "XID 95"}


def test_other_events_are_ignored(install: Install) -> None:
    override(install("c4140"), nvmlEventSetWait_v2=events((0, 2, 79)))
    with Nvml() as nvml:
        assert HealthMonitor().check(nvml, range(4)) == {}


def test_each_gpu_is_registered_once_for_xids(install: Install) -> None:
    registered: list[tuple[int, int]] = []

    def register(device: Any, kinds: Any, _events: Any) -> int:
        registered.append((ctypes.cast(device, ctypes.c_void_p).value or 0, kinds.value))
        return 0

    override(install("c4140"), nvmlDeviceRegisterEvents=register)
    with Nvml() as nvml:
        nvml.critical_xids(range(4))
        nvml.critical_xids(range(4))
    assert sorted(registered) == [(gpu + 1, XID_EVENT) for gpu in range(4)]


def test_endless_events_do_not_block_a_reading(install: Install) -> None:
    override(install("c4140"), nvmlEventSetWait_v2=lambda *_: 0)
    with Nvml() as nvml:
        assert nvml.critical_xids(range(4)) == []


def test_failed_row_remapping_is_unhealthy_until_it_is_cleared(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    library = install("c4140")

    def failed(device: Any, _corrected: Any, _uncorrected: Any, pending: Any, failure: Any) -> int:
        pending._obj.value = 1  # on every GPU: a pending remapping alone is no symptom
        failure._obj.value = int(ctypes.cast(device, ctypes.c_void_p).value == 2)
        return 0

    monitor = HealthMonitor()
    with Nvml() as nvml:
        override(library, nvmlDeviceGetRemappedRows=failed)
        assert monitor.check(nvml, range(4)) == {1: "a broken memory row could not be remapped"}
        override(library, nvmlDeviceGetRemappedRows=lambda *_: 0)
        assert monitor.check(nvml, range(4)) == {}
    assert caplog.records[-1].getMessage() == "GPU 1 is healthy again"


def test_uncorrected_errors_since_driver_load_are_counted(install: Install) -> None:
    def errors(_device: Any, kind: Any, since: Any, count: Any) -> int:
        count._obj.value = 7 if (kind.value, since.value) == (1, 0) else 99  # uncorrected, volatile
        return 0

    override(install("c4140"), nvmlDeviceGetRemappedRows=lambda *_: 3, nvmlDeviceGetTotalEccErrors=errors)
    with Nvml() as nvml:
        assert HealthMonitor().check(nvml, [2]) == {2: "7 uncorrected memory errors"}


def test_unreachable_gpu_is_unhealthy(install: Install) -> None:
    override(install("c4140"), nvmlDeviceGetHandleByIndex_v2=lambda *_: 15)
    with Nvml() as nvml:
        assert HealthMonitor().check(nvml, [0]) == {0: "the driver cannot reach it"}
