"""Whether the API server keeps others from writing muster's own names: it has the policy muster-pods and its binding.

Operator and extender ask before they read anything else, and again and again. Without the policy, what pods say of themselves
counts for nothing (`trust`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import msgspec

from muster.allocation.view import ClusterView
from muster.api import write_policies
from muster.kube import paths
from muster.kube.client import Client
from muster.kube.errors import Forbidden, KubeError, NotFound
from muster.kube.objects import Meta

log: Final = logging.getLogger(__name__)

KINDS: Final = ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
CHECK_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 1.0


class Rules(msgspec.Struct, rename="camel"):
    """What is read of the spec of a policy or of a binding."""

    failure_policy: str = ""
    policy_name: str = ""
    validation_actions: list[str] = []
    match_resources: dict[str, Any] | None = None


class Admission(msgspec.Struct):
    """A ValidatingAdmissionPolicy or its binding."""

    metadata: Meta
    spec: Rules


def is_enforced(policy: Admission, binding: Admission) -> bool:
    """Return whether a policy and its binding deny everywhere what the policy forbids."""
    if policy.metadata.deletion_timestamp or binding.metadata.deletion_timestamp or binding.spec.match_resources:
        return False
    bound = binding.spec.policy_name == policy.metadata.name and "Deny" in binding.spec.validation_actions
    return bound and policy.spec.failure_policy == "Fail"


class Vouching:
    """Tells a view whether the policy vouches for what pods say."""

    def __init__(self, client: Client, view: ClusterView) -> None:
        self._client, self._view = client, view
        self._said: str | None = None

    async def settle(self) -> None:
        """Ask until the API server answers."""
        while not await self._check():  # noqa: ASYNC110 (nothing but the API server can tell)
            await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self._check()

    async def _check(self) -> bool:
        """Ask once, and tell the view; return False if there was no answer, which changes nothing."""
        try:
            policy, binding = [await self._read(plural) for plural in KINDS]
            problem = "" if is_enforced(policy, binding) else f"the policy {write_policies.PODS} is not enforced"
        except (NotFound, Forbidden, msgspec.MsgspecError) as error:
            problem = str(error)
        except KubeError as error:
            log.warning("cannot ask for the admission policy %s: %s", write_policies.PODS, error)
            return False
        self._tell(problem)
        return True

    async def _read(self, plural: str) -> Admission:
        return msgspec.json.decode(await self._client.get(paths.admission(plural, write_policies.PODS)), type=Admission)

    def _tell(self, problem: str) -> None:
        if problem != self._said:
            self._said = problem
            if problem:
                log.warning("annotations of pods count for nothing, since anybody may write them: %s", problem)
            else:
                log.info("annotations of pods count: the admission policy %s is enforced", write_policies.PODS)
        self._view.vouch(not problem)
