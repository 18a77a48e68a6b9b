"""A real Kubernetes control plane on one machine, without Docker and root, to try, test and measure.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok run as processes on free ports of loopback, with
their own certificates. None outlives the process that started them, however that ends. Linux only: the kernel ties the
processes together (PR_SET_PDEATHSIG, pidfd).
"""
