"""Machine types as data: GPUs, their links, NICs with their distance to each GPU, and memory.

Link tables are recorded `nvidia-smi topo -m` outputs (data/, with their sources); machines.toml names the types.
Standard library only.
"""

from muster.machines.catalogue import Machine, UnknownMachine, catalogue, machine, names
from muster.machines.topo import BadTopo, Topo, parse_topo, render_topo

__all__ = ["BadTopo", "Machine", "Topo", "UnknownMachine", "catalogue", "machine", "names", "parse_topo", "render_topo"]
