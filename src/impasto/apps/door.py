"""What the server and the page have in common: jobs and batches, what is counted, listening."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from impasto.apps.guard import App, Guard, Message, Receive, Scope, Send
from impasto.errors import ImpastoError
from impasto.jobs.batcher import Batcher
from impasto.jobs.queue import Jobs
from impasto.settings import ServeSettings, parse_memory

DRAIN = 30.0
"""Seconds that running work gets to end after SIGTERM."""


class Door:
    """What the routes share: jobs, batches, and what is counted of them."""

    def __init__(self, jobs: Jobs, batcher: Batcher) -> None:
        self.jobs, self.batcher = jobs, batcher
        self.is_draining = False
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "impasto_request_seconds",
            "Time from a request's last byte to its answer, by route and status",
            ["route", "status"],
            registry=self.registry,
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
        )
        self.batches = Histogram(
            "impasto_batch_pictures",
            "Pictures painted together in one pass",
            registry=self.registry,
            buckets=(1, 2, 3, 4, 6, 8, 12, 16),
        )
        self.batch_seconds = Histogram(
            "impasto_batch_seconds",
            "Time that a batch took",
            registry=self.registry,
            buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
        )
        self.refusals = Counter(
            "impasto_refusals_total",
            "Requests that were refused, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.registry.register(_State(self))
        batcher.observe = self._observe

    def _observe(self, pictures: int, seconds: float) -> None:
        self.batches.observe(pictures)
        self.batch_seconds.observe(seconds)

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self.refusals.labels(reason).inc()

    def drain(self) -> None:
        """Take on nothing new, and let what runs end or be kept."""
        self.is_draining = True
        self.batcher.drain()
        self.jobs.drain()

    def close(self) -> None:
        """End all workers; jobs that have not ended begin again at the next start."""
        self.batcher.close(DRAIN)
        self.jobs.close(DRAIN)


class _State(Collector):
    """The state of the door at the moment, as metrics."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def collect(self) -> Iterator[Metric]:
        jobs, batcher = self.door.jobs, self.door.batcher
        waiting = GaugeMetricFamily("impasto_waiting", "What waits, by queue", labels=["queue"])
        running = GaugeMetricFamily("impasto_running", "What runs, by queue", labels=["queue"])
        deaths = GaugeMetricFamily(
            "impasto_worker_deaths", "Workers that died and were replaced", labels=["queue"]
        )
        memory = GaugeMetricFamily(
            "impasto_memory_bytes", "Resident memory, by process", labels=["process"]
        )
        for name, queue in (("jobs", jobs), ("apply", batcher)):
            waiting.add_metric([name], queue.waiting)
            running.add_metric([name], queue.running)
            deaths.add_metric([name], queue.deaths)
            for number, worker in enumerate(queue.workers):
                if size := _resident(getattr(worker, "pid", None)):
                    memory.add_metric([f"{name}-{number}"], size)
        memory.add_metric(["server"], psutil.Process().memory_info().rss)
        ended = GaugeMetricFamily(
            "impasto_jobs_ended", "Jobs that ended since the start", labels=["state"]
        )
        for state, count in jobs.ended.items():
            ended.add_metric([state], count)
        devices = GaugeMetricFamily(
            "impasto_workers", "Workers, by device and queue", labels=["device", "queue"]
        )
        devices.add_metric([batcher.limits.device, "apply"], len(batcher.workers))
        devices.add_metric([jobs.limits.device, "jobs"], jobs.limits.painters)
        yield from (waiting, running, deaths, memory, ended, devices)


def _resident(pid: int | None) -> int:
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss) if pid else 0
    return 0


class Timed:
    """An ASGI app around another one, which notes how long answers take."""

    def __init__(self, app: App, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, status = time.monotonic(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self.app(scope, receive, noted)
        if scope["type"] == "http":
            name = getattr(scope.get("route"), "path", "other")
            seconds = time.monotonic() - began
            self.door.requests.labels(name, str(status)).observe(seconds)


def guarded(app: App, door: Door, settings: ServeSettings, token: str | None) -> Guard:
    """An app with a `Guard` before it."""
    return Guard(
        app,
        upload=parse_memory(settings.upload),
        most=2 * settings.queue + 64,
        token=token,
        refused=door.refused,
    )


def listen(
    app: App, settings: ServeSettings, drain: Callable[[], None], say: Callable[[str], None]
) -> None:
    """Serve an app until SIGTERM or Ctrl-C; then `drain` is called, and running requests end.

    say: called with a line once the server listens.

    Raises:
        ImpastoError: the port is taken, or the address is not this machine's.
    """
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # clients are told
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(DRAIN),
    )
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listening = socket.create_server((settings.host, settings.port), family=family)
    except OSError:
        raise ImpastoError(
            f"{settings.host}:{settings.port} cannot be listened on; give another --port or --host"
        ) from None
    host, port = listening.getsockname()[:2]
    say(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
    server = _Server(config, drain)
    try:
        # uvicorn raises the signal again when it has ended.
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listening])
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """A server that drains before it ends."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self.drain = drain

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take on nothing new, then end as uvicorn does."""
        self.drain()
        super().handle_exit(sig, frame)
