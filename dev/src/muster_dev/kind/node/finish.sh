#!/bin/sh
# Runs once, in the root file system of the node image: enables services and imports the cluster's images.
set -eu
systemctl --quiet enable kubelet.service containerd.service undo-mount-hacks.service pod-network.service
systemctl --quiet mask systemd-binfmt.service # its registrations would be machine-wide
ctr oci spec >/kind/spec.json
containerd >/dev/null 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
# Not unpacked: a node has its overlay on a volume of its own.
ctr --namespace k8s.io images import --no-unpack --all-platforms /kind/images.tar
ctr --namespace k8s.io images list --quiet | while read -r image; do # pinned: the kubelet's garbage collection keeps them
    ctr --namespace k8s.io images label "$image" io.cri-containerd.pinned=pinned >/dev/null
done
kill $!
wait
