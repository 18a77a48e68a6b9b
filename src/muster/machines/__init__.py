"""Machine types as data: how many GPUs, how they are joined, which NICs are near, how much memory.

The link tables are recorded `nvidia-smi topo -m` printouts (data/, with their sources); machines.toml names the types.
Standard library only.
"""

from muster.machines.catalogue import Machine, UnknownMachine, catalogue, machine
from muster.machines.topo import BadTopo, Topo, parse_topo, render_topo

__all__ = ["BadTopo", "Machine", "Topo", "UnknownMachine", "catalogue", "machine", "parse_topo", "render_topo"]
