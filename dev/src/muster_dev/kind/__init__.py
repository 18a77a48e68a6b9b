"""A cluster of containers on this machine, with muster installed in it as its users install it: `muster kind`.

Where a container engine runs and images can be pulled, this is stock kind with stock images. Where not (no engine, no
registry), everything comes from Debian packages, Go modules and this project: the engine, which runs in namespaces of its
own, the node image, muster's images. What can be made again lies in the cache, keyed by what it was made from; `down`
takes everything else away.
"""
