"""The pod templates of a job, read from the API server for as long as pods are made of them.

They never change, and they are the longest part of a job: kept for every job that waits, they would decide how much memory the
operator needs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from muster.api.status import RoleName
from muster.kube.errors import NotFound
from muster_operator.controller import Context
from muster_operator.dljob.decoding import DLJOBS
from muster_operator.dljob.job import Job
from muster_operator.pinning import Manifest

JOBS_AT_ONCE = 8
"""Jobs whose templates one reader has in memory; the others wait. Where thousands arrive at once, that also leaves most of the
client's connections to decisions."""


class JobGone(Exception):
    """The job was deleted meanwhile, or another has its name."""


class Templates:
    """Reads templates; each use has a reader of its own, so that the check of new jobs does not keep admitted ones waiting."""

    def __init__(self, context: Context) -> None:
        self._api_writer = context.api_writer
        self._turns = asyncio.Semaphore(JOBS_AT_ONCE)

    @asynccontextmanager
    async def of(self, job: Job) -> AsyncIterator[Mapping[RoleName, Manifest]]:
        """Give the template of each role, which are to be dropped with the context; raise JobGone."""
        async with self._turns:
            yield await self._read(job)

    async def _read(self, job: Job) -> dict[RoleName, Manifest]:
        try:
            whole = await self._api_writer.read(DLJOBS, job.meta)
        except NotFound:
            raise JobGone from None
        if whole["metadata"]["uid"] != job.meta.uid:
            raise JobGone
        return {role: whole["spec"]["roles"][role]["template"] for role in job.replicas}
