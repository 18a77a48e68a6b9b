"""`muster kind`: a cluster of containers on this machine, with muster installed as users install it.

With a container engine and a registry this is stock kind with stock images. Without either, Debian packages, Go modules and
this project supply everything: a private engine in its own namespaces, the node image, muster's images. The cache keeps what
can be made again, keyed by its ingredients; `down` removes everything else.
"""
