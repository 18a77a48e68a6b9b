"""The resources of storage, which are only read."""

from __future__ import annotations

from muster.kube import paths
from muster.kube.objects import Claim, StorageClass, Volume, decoder
from muster_operator.resources import Resource

CLAIMS = Resource(paths.CORE, "persistentvolumeclaims", decoder(Claim))
VOLUMES = Resource(paths.CORE, "persistentvolumes", decoder(Volume))
STORAGE_CLASSES = Resource(paths.STORAGE, "storageclasses", decoder(StorageClass))
