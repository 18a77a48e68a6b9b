"""A ring all-reduce over TCP between the processes of a gang, standard library only: a stand-in for training.

Each step sums a vector over all ranks, as data-parallel training sums gradients. The vector is split into one piece for each
rank; each piece travels around the ring once to be summed and once to be distributed (Patarasuk and Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations", 2009). muster sets the environment: RANK, WORLD_SIZE, MASTER_ADDR,
MASTER_PORT. On SIGTERM the program prints a line and exits.
"""

import argparse
import os
import signal
import socket
import sys
import time
from array import array

LENGTH = 4096  # of the vector: a piece fits into the socket buffers, since every rank sends before it receives
PATIENCE = 120.0  # seconds


def main() -> int:
    """Run the steps; return 0, or 1 if a sum is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.0, help="seconds of computation between two sums")
    parser.add_argument("--fail-rank", type=int, default=-1, help="the rank that exits with code 1 after the first step")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    say(f"rank {rank} of {size} on {os.environ.get('NODE_NAME', socket.gethostname())}, GPUs {gpus()}")
    left, right = join_ring(rank, size)
    begun = time.monotonic()
    for step in range(args.steps):
        vector = array("d", [rank + step] * LENGTH)
        all_reduce(vector, rank, size, left, right)
        expected = size * (size - 1) / 2 + size * step
        if any(number != expected for number in vector):
            say(f"step {step}: the sum is wrong")
            return 1
        if rank == 0 and (step + 1) % 10 == 0:
            say(f"step {step + 1}: sum {vector[0]:.0f}, {(step + 1) / (time.monotonic() - begun):.1f} steps a second")
        if rank == args.fail_rank:
            say("failing, as asked")
            return 1
        time.sleep(args.seconds)
    say(f"rank {rank}: {args.steps} steps, every sum right")
    return 0


def join_ring(rank: int, size: int) -> tuple[socket.socket, socket.socket]:
    """Exchange addresses through rank 0; return the connections from the left and to the right neighbour."""
    listener = socket.create_server(("", 0))
    me = (own_address(), listener.getsockname()[1])
    addresses = gather(size, me) if rank == 0 else ask(rank, me)
    right = connect(*addresses[(rank + 1) % size])
    right.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    left, _ = listener.accept()
    left.settimeout(PATIENCE)
    return left, right


def gather(size: int, me: tuple[str, int]) -> list[tuple[str, int]]:
    """As rank 0, collect all addresses and send the list to every rank."""
    addresses, callers = {0: me}, []
    with socket.create_server(("", int(os.environ["MASTER_PORT"]))) as server:
        while len(addresses) < size:
            caller, _ = server.accept()
            words = caller.makefile().readline().split()
            addresses[int(words[0])] = (words[1], int(words[2]))
            callers.append(caller)
    everyone = [addresses[rank] for rank in range(size)]
    for caller in callers:
        caller.sendall((" ".join(f"{host} {port}" for host, port in everyone) + "\n").encode())
        caller.close()
    return everyone


def ask(rank: int, me: tuple[str, int]) -> list[tuple[str, int]]:
    """Send the own address to rank 0 and return the list of all addresses."""
    with connect(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])) as caller:
        caller.sendall(f"{rank} {me[0]} {me[1]}\n".encode())
        words = caller.makefile().readline().split()
    return [(host, int(port)) for host, port in zip(words[::2], words[1::2], strict=True)]


def all_reduce(vector: array, rank: int, size: int, left: socket.socket, right: socket.socket) -> None:
    """Replace the vector by the sum of all ranks' vectors, in 2 * (size - 1) exchanges with the neighbours."""
    bounds = [len(vector) * piece // size for piece in range(size + 1)]
    for turn in range(2 * (size - 1)):
        sent, received = (rank - turn) % size, (rank - turn - 1) % size
        right.sendall(vector[bounds[sent] : bounds[sent + 1]].tobytes())
        piece = slice(bounds[received], bounds[received + 1])
        numbers = array("d")
        numbers.frombytes(receive(left, 8 * (piece.stop - piece.start)))
        summing = turn < size - 1
        vector[piece] = array("d", map(sum, zip(vector[piece], numbers, strict=True))) if summing else numbers


def receive(connection: socket.socket, count: int) -> bytes:
    """Return exactly `count` bytes."""
    parts = bytearray()
    while len(parts) < count:
        part = connection.recv(count - len(parts))
        if not part:
            raise ConnectionError("the left neighbour closed the connection")
        parts += part
    return bytes(parts)


def connect(host: str, port: int) -> socket.socket:
    """Connect, retrying until the host resolves and listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((host, port), timeout=PATIENCE)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def own_address() -> str:
    """Return the pod's address, which /etc/hosts has for its own name."""
    return socket.gethostbyname(socket.gethostname())


def gpus() -> str:
    """Return the GPUs from the device plugin."""
    return os.environ.get("NVIDIA_VISIBLE_DEVICES", "none")


def stop(_signal: int, _frame: object) -> None:
    """Exit with the code of a program ended by SIGTERM."""
    say("told to stop")
    sys.exit(143)


def say(text: str) -> None:
    """Print a line without buffering."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
