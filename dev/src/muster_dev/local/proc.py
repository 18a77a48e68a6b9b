"""State and consumption of a process (MiB, CPU seconds), read from /proc.

A zombie is not alive: its parent may reap it late, and `kill(pid, 0)` cannot tell the difference.
"""

from __future__ import annotations

import os
from pathlib import Path


def alive(pid: int) -> bool:
    """Return whether the process runs; a zombie does not."""
    return _field(pid, "State")[:1] not in ("", "Z", "X")


def memory_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB, 0 if it has ended."""
    return _mib(pid, "VmRSS")


def peak_memory_mib(pid: int) -> float:
    """Return the most resident memory that a process has had so far in MiB, 0 if it has ended."""
    return _mib(pid, "VmHWM")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, user and system, in seconds; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _mib(pid: int, name: str) -> float:
    words = _field(pid, name).split()
    return int(words[0]) / 1024 if words else 0.0


def _field(pid: int, name: str) -> str:
    """Return a field of /proc/PID/status, empty if there is no such process or field."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key == name), "")
