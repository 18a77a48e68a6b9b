"""The machine-wide sysctls that kind's nodes set: read before, restored afterwards.

systemd in a node raises the limits of open files; kubelets set memory overcommit, panics and keys. Network sysctls belong to
the network namespace and disappear with it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_NAMES = (
    "fs/file-max",
    "fs/nr_open",
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/pid_max",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def read() -> dict[str, str]:
    """Return the values of the sysctls that this kernel has."""
    values = {}
    for name in _NAMES:
        with contextlib.suppress(OSError):
            values[name] = Path("/proc/sys", name).read_text().strip()
    return values


def restore(values: dict[str, str]) -> None:
    """Write the values that differ from the current ones."""
    current = read()
    for name, value in values.items():
        if current.get(name) != value:
            Path("/proc/sys", name).write_text(value)
