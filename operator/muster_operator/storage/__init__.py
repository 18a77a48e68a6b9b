"""What the volumes of a gang ask: claims that exist and are bound, and nodes from which they can be reached.

    resources   what is watched: PersistentVolumeClaims, PersistentVolumes, StorageClasses
    catalogue   the same as it is now, with what is looked up by more than a name
    needs       pure: from the claims that a pod uses to conditions on its node, or to what it lacks
    places      pure: from where volumes can be reached, and which free ones match a claim
    storage     needs of whole gangs, from the stores; has a gang planned again when an answer may be another

The rules are those of kube-scheduler's plugins VolumeBinding, VolumeZone and VolumeRestrictions. Not known here, and learned
from a refusal: which of several free volumes kube-scheduler takes, how much room a provisioner has left, and how many volumes
a node can attach.
"""
