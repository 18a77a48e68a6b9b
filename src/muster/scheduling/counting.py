"""Numbers of things in a sentence."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return "1 GPU" or "4 GPUs"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
