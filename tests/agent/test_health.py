from __future__ import annotations

import ctypes
import logging
from typing import Any

import pytest

from agent.conftest import Install, override
from muster_agent.health import Watch, trouble
from muster_agent.nvml import Nvml

XID_EVENT = 8


@pytest.mark.parametrize(
    ("lost", "xid", "remap", "errors", "reason"),
    [
        (False, None, False, 0, None),
        (False, None, None, None, None),  # a GPU that tells nothing shows no sign of trouble
        (True, None, None, None, "the driver cannot reach it"),
        (False, 79, False, 0, "XID 79"),
        (False, None, True, 0, "a broken memory row could not be replaced"),
        (False, None, False, 5, None),  # replaced by spare rows
        (False, None, None, 5, "5 uncorrected memory errors"),  # no spare rows
    ],
)
def test_what_makes_a_gpu_unhealthy(
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


def test_xids_count_until_the_agent_starts_anew(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    library = install("c4140")
    override(library, nvmlEventSetWait_v2=events((1, XID_EVENT, 79), (3, XID_EVENT, 48), (1, XID_EVENT, 94)))
    watch = Watch()
    with Nvml() as nvml:
        assert watch.look(nvml, range(4)) == {1: "XID 79", 3: "XID 48"}
        assert watch.look(nvml, range(4)) == {1: "XID 79", 3: "XID 48"}
    assert [r.getMessage() for r in caplog.records] == ["GPU 1 is unhealthy: XID 79", "GPU 3 is unhealthy: XID 48"]


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_an_applications_fault_is_not_the_gpus(xid: int, install: Install) -> None:
    override(install("c4140"), nvmlEventSetWait_v2=events((0, XID_EVENT, xid), (2, XID_EVENT, 95)))
    with Nvml() as nvml:
        assert Watch().look(nvml, range(4)) == {2: "XID 95"}


def test_other_events_are_no_sign(install: Install) -> None:
    override(install("c4140"), nvmlEventSetWait_v2=events((0, 2, 79)))
    with Nvml() as nvml:
        assert Watch().look(nvml, range(4)) == {}


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


def test_events_without_end_do_not_hold_a_reading_up(install: Install) -> None:
    override(install("c4140"), nvmlEventSetWait_v2=lambda *_: 0)
    with Nvml() as nvml:
        assert nvml.critical_xids(range(4)) == []


def test_a_row_that_could_not_be_replaced_and_a_return_to_health(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    library = install("c4140")

    def failed(device: Any, _corrected: Any, _uncorrected: Any, pending: Any, failure: Any) -> int:
        pending._obj.value = 1  # on every GPU: a pending replacement alone is no trouble
        failure._obj.value = int(ctypes.cast(device, ctypes.c_void_p).value == 2)
        return 0

    watch = Watch()
    with Nvml() as nvml:
        override(library, nvmlDeviceGetRemappedRows=failed)
        assert watch.look(nvml, range(4)) == {1: "a broken memory row could not be replaced"}
        override(library, nvmlDeviceGetRemappedRows=lambda *_: 0)
        assert watch.look(nvml, range(4)) == {}
    assert caplog.records[-1].getMessage() == "GPU 1 is healthy again"


def test_uncorrected_errors_are_those_since_the_driver_was_loaded(install: Install) -> None:
    def errors(_device: Any, kind: Any, since: Any, count: Any) -> int:
        count._obj.value = 7 if (kind.value, since.value) == (1, 0) else 99  # uncorrected, volatile
        return 0

    override(install("c4140"), nvmlDeviceGetRemappedRows=lambda *_: 3, nvmlDeviceGetTotalEccErrors=errors)
    with Nvml() as nvml:
        assert Watch().look(nvml, [2]) == {2: "7 uncorrected memory errors"}


def test_an_unreachable_gpu(install: Install) -> None:
    override(install("c4140"), nvmlDeviceGetHandleByIndex_v2=lambda *_: 15)
    with Nvml() as nvml:
        assert Watch().look(nvml, [0]) == {0: "the driver cannot reach it"}
