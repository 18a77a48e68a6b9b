from __future__ import annotations

from dataclasses import replace

import aiohttp

from muster_agent.metrics import Gauges, serve
from muster_agent.reading import Sample

BUSY = Sample(0, "GPU-a", True, 0.87, 3 << 30, 16 << 30, 61, 212.5)
MUTE = Sample(1, "GPU-b", False, None, None, None, None, None)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def fetch(gauges: Gauges, path: str) -> tuple[int, str, str]:
    server = await serve(gauges, 0, "127.0.0.1")
    try:
        port = server.addresses[0][1]
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, response.headers["Content-Type"], await response.text()
    finally:
        await server.cleanup()


async def test_scrape_has_exactly_the_reported_values() -> None:
    gauges = Gauges("n1", patience=10)
    gauges.show([BUSY, MUTE])
    status, kind, text = await fetch(gauges, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'muster_gpu_utilization_ratio{gpu="0",node="n1",uuid="GPU-a"} 0.87',
        'muster_gpu_memory_used_bytes{gpu="0",node="n1",uuid="GPU-a"} 3.221225472e+09',
        'muster_gpu_memory_total_bytes{gpu="0",node="n1",uuid="GPU-a"} 1.7179869184e+10',
        'muster_gpu_temperature_celsius{gpu="0",node="n1",uuid="GPU-a"} 61.0',
        'muster_gpu_power_watts{gpu="0",node="n1",uuid="GPU-a"} 212.5',
        'muster_gpu_healthy{gpu="0",node="n1",uuid="GPU-a"} 1.0',
        'muster_gpu_healthy{gpu="1",node="n1",uuid="GPU-b"} 0.0',
    ]
    assert "# TYPE muster_gpu_utilization_ratio gauge" in text


async def test_zero_is_exported() -> None:
    gauges = Gauges("n1", patience=10)
    gauges.show([replace(BUSY, utilisation=0.0)])
    assert 'muster_gpu_utilization_ratio{gpu="0",node="n1",uuid="GPU-a"} 0.0' in (await fetch(gauges, "/metrics"))[2]


async def test_removed_gpu_has_no_samples() -> None:
    gauges = Gauges("n1", patience=10)
    gauges.show([BUSY, MUTE])
    gauges.show([])
    assert "GPU-" not in (await fetch(gauges, "/metrics"))[2]


async def test_healthz_fails_without_recent_readings() -> None:
    clock = Clock()
    gauges = Gauges("n1", patience=10, clock=clock)
    assert (await fetch(gauges, "/healthz"))[0] == 200  # the first reading may still be in progress
    clock.now += 10
    status, _, text = await fetch(gauges, "/healthz")
    assert status == 503
    assert "the driver may hang" in text
    gauges.show([])  # an empty reading counts
    assert (await fetch(gauges, "/healthz"))[0] == 200
    clock.now += 9
    assert (await fetch(gauges, "/healthz"))[0] == 200
