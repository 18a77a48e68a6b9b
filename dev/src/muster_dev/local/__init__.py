"""A real Kubernetes control plane on one machine, without Docker and without root, for trying, testing and measuring.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok run as processes on loopback, on free ports, with
certificates of their own. Whatever happens to the process that started them, none is left behind. Linux only: the
processes are tied together by means of that kernel.
"""
