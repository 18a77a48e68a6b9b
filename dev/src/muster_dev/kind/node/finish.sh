#!/bin/sh
# Runs once, in the node's root file system while that becomes an image: enables services, takes in the cluster's images.
set -eu
systemctl --quiet enable kubelet.service containerd.service undo-mount-hacks.service pod-network.service
systemctl --quiet mask systemd-binfmt.service # what it registers would hold for the whole machine
ctr oci spec >/kind/spec.json
containerd >/dev/null 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.1; done
# Not unpacked: the overlay of a node lies on its own volume.
ctr --namespace k8s.io images import --no-unpack --all-platforms /kind/images.tar
ctr --namespace k8s.io images list --quiet | while read -r image; do # kept by the kubelet's clearing up
    ctr --namespace k8s.io images label "$image" io.cri-containerd.pinned=pinned >/dev/null
done
kill $!
wait
