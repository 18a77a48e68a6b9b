"""The sysctls of the whole machine that kind's nodes set: noted before, put back afterwards.

The systemd in a node raises the numbers of files; kubelets set memory overcommit, panics and keys. Those of networks are
the network namespace's own and go with it.
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
    """Return the values of those that there are."""
    found = {}
    for name in _NAMES:
        with contextlib.suppress(OSError):
            found[name] = Path("/proc/sys", name).read_text().strip()
    return found


def restore(values: dict[str, str]) -> None:
    """Give those that differ their values back."""
    now = read()
    for name, value in values.items():
        if now.get(name) != value:
            Path("/proc/sys", name).write_text(value)
