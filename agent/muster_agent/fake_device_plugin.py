"""`muster-fake-device-plugin`: fake GPUs for evaluation and tests on clusters without GPUs; nothing computes on them.

The plugin registers with the kubelet (device plugin API v1beta1) the GPUs of the machine type in the node's label
muster.dev/machine, with the UUIDs of the agent's stand-in. Pods that request nvidia.com/gpu find their devices in
NVIDIA_VISIBLE_DEVICES, as with NVIDIA's plugin. Invariant: the plugin registers again with a restarted kubelet.

The few messages of the API are encoded by hand (`device_plugin_wire`), so no generated code is needed.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import grpc

from muster.api import names
from muster.kube.client import Client
from muster.kube.errors import KubeError
from muster_agent import device_plugin_wire as wire
from muster_agent.node import wait
from muster_agent.standin import labelled

log = logging.getLogger("muster_agent.fake_device_plugin")

SOCKET: Final = "muster-fake.sock"
_CHECK_SECONDS: Final = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or SIGINT; return the exit status."""
    parser = argparse.ArgumentParser(prog="muster-fake-device-plugin", description=__doc__)
    parser.add_argument("--node-name", default=os.environ.get("NODE_NAME"), help="name of this node (default: $NODE_NAME)")
    parser.add_argument("--kubeconfig", help="default: $KUBECONFIG, the pod's service account, ~/.kube/config")
    parser.add_argument(
        "--plugins", type=Path, default=Path("/var/lib/kubelet/device-plugins"), help="the kubelet's device plugin directory"
    )
    args = parser.parse_args(argv)
    if not args.node_name:
        parser.error("the node name is missing: give --node-name, or set NODE_NAME from spec.nodeName (downward API)")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_run(args))
    except (KubeError, OSError) as error:
        print(f"muster-fake-device-plugin: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(args: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with await Client.connect(args.kubeconfig) as client:
        hardware = await labelled.hardware(client, args.node_name)
    if hardware is None:
        await stop.wait()
    else:
        await serve(args.plugins, hardware.uuids, stop)


async def serve(plugins: Path, uuids: Sequence[str], stop: asyncio.Event) -> None:
    """Offer GPUs with these UUIDs to the kubelet with directory `plugins` until `stop` is set."""
    server: grpc.aio.Server | None = None
    registered = None
    while not stop.is_set():
        kubelet = _identity(plugins / "kubelet.sock")
        if kubelet and kubelet != registered:
            if server:
                await server.stop(None)
            server = await _listen(plugins, uuids)
            try:
                await _register(plugins)
            except grpc.aio.AioRpcError as error:
                log.warning("registration with the kubelet failed, retrying: %s", error.details())
            else:
                registered = kubelet
                log.info("registered %d fake GPUs with the kubelet", len(uuids))
        await wait(stop, _CHECK_SECONDS)
    if server:
        await server.stop(None)


async def _listen(plugins: Path, uuids: Sequence[str]) -> grpc.aio.Server:
    async def options(_request: bytes, _context: object) -> bytes:
        return b""

    async def list_and_watch(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        yield wire.devices(uuids)
        await asyncio.Event().wait()  # the devices never change

    async def allocate(request: bytes, _context: object) -> bytes:
        return wire.allocated(wire.requested(request))

    handlers = {
        "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(options),
        "ListAndWatch": grpc.unary_stream_rpc_method_handler(list_and_watch),
        "Allocate": grpc.unary_unary_rpc_method_handler(allocate),
    }
    (plugins / SOCKET).unlink(missing_ok=True)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", handlers)])
    server.add_insecure_port(f"unix://{plugins / SOCKET}")
    await server.start()
    return server


async def _register(plugins: Path) -> None:
    async with grpc.aio.insecure_channel(f"unix://{plugins / 'kubelet.sock'}") as channel:
        await channel.unary_unary("/v1beta1.Registration/Register")(wire.registration(SOCKET, names.GPU), timeout=5)


def _identity(socket: Path) -> tuple[int, int] | None:
    try:
        status = socket.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


if __name__ == "__main__":
    sys.exit(main())
