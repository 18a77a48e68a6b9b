#!/bin/bash
# The pod network of a node. The subnet follows from the node's address, so no daemon has to assign it: node A.B.C.D gives
# its pods addresses of 10.244.D.0/24, and routes 10.244.E.0/24 to A.B.C.E.
set -euo pipefail

node=$(ip -4 -o address show dev eth0 scope global | awk '{split($4, part, "/"); print part[1]; exit}')
own=${node##*.}

for other in {1..254}; do
    [ "$other" = "$own" ] || echo "route replace 10.244.$other.0/24 via ${node%.*}.$other onlink dev eth0"
done | ip -batch -

nft -f - <<RULES
table ip pod_network
delete table ip pod_network
table ip pod_network {
    chain leaving {
        type nat hook postrouting priority srcnat
        ip saddr 10.244.$own.0/24 ip daddr != 10.244.0.0/16 fib daddr type != local masquerade
    }
    # A Service that kube-proxy does not know yet is refused at once: CoreDNS, which starts before kube-proxy, then tries the
    # API server again after a second instead of thirty.
    chain unknown {
        type filter hook forward priority filter
        ip daddr 10.96.0.0/16 reject
    }
}
RULES

cat >/etc/cni/net.d/10-pods.conflist <<CNI
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "mtu": 1500, "ipam": {"type": "host-local", "dataDir": "/run/pod-addresses",
    "ranges": [[{"subnet": "10.244.$own.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CNI
