"""The server under load, with its real network: batches, overload, a killed worker, start.

    python benchmarks/serve.py [start] [batches] [overload] [kill] [--requests N] [--rounds N]

Every server is a process of its own on 127.0.0.1; requests come from threads of this one, with the
four sample photos in turn, each in a style of its own. batches: the same requests to servers that
differ in how many workers they have and in how many pictures go in together; all are asked in turn,
`--rounds` times, and the table has medians and the ratio to one worker that paints one at a time.
overload: 100 requests at once, with room for 20. kill: a worker is killed with signal 9 after a
quarter of 200 requests. start: seconds from the start of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from impasto import sample, sample_names
from impasto.apps.door import Door, listen as listen_to
from impasto.apps.serve import build
from impasto.jobs.batcher import MOST, Batcher
from impasto.jobs.queue import Jobs
from impasto.jobs.workers import Worker
from impasto.networks.files import read
from impasto.settings import ServeSettings

PARTS = ("start", "batches", "overload", "kill")
AT_ONCE = 12
SIZES = (512, 192)


@dataclass(frozen=True)
class Kind:
    """A kind of server: its workers, the threads of each, and how many pictures go together."""

    workers: int
    threads: int
    together: int

    @property
    def name(self) -> str:
        several = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        how = "one at a time" if self.together == 1 else f"up to {self.together} together"
        return f"{several} of {self.threads} thread{'s' if self.threads > 1 else ''}, {how}"


def listen(kind: Kind, queue: int, folder: str) -> None:
    """What the process of a server does."""
    settings = ServeSettings(port=0, workers=kind.workers, queue=queue)
    jobs = Jobs(Path(folder), settings, lambda: Worker(1))
    batcher = Batcher(settings, lambda: Worker(kind.threads))
    batcher.together = kind.together
    door = Door(jobs, batcher)
    try:
        listen_to(build(door, settings), settings, door.drain, print_line)
    finally:
        door.drain()
        door.close()


def print_line(line: str) -> None:
    print(line, flush=True)


class Server:
    """A server's process, a client for it, and the seconds until it answered first."""

    def __init__(self, kind: Kind, queue: int, folder: str) -> None:
        command = [sys.executable, __file__, "--listen", str(kind.workers), str(kind.threads)]
        command += [str(kind.together), str(queue), folder]
        began = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        url = self.process.stdout.readline().split()[-1]
        limits = httpx.Limits(max_connections=200)
        self.client = httpx.Client(base_url=url, timeout=300, limits=limits)
        while True:
            with contextlib.suppress(httpx.TransportError):
                self.client.get("/healthz")
                break
        self.healthy = time.monotonic() - began
        assert self.ask(0, 512) == 200
        self.painted = time.monotonic() - began
        while self.client.get("/readyz").status_code != 200:
            time.sleep(0.05)

    def ask(self, number: int, size: int) -> int:
        photo = PHOTOS[number % len(PHOTOS)]
        data = {"style": STYLES[number % len(STYLES)], "size": str(size), "format": "jpg"}
        answer = self.client.post("/v1/apply", data=data, files={"photo": photo})
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) > 0
        return answer.status_code

    def batches(self) -> tuple[float, float]:
        """How many batches there were, and how many pictures."""
        text = self.client.get("/metrics").text
        found = {
            n: float(v) for n, v in re.findall(r"impasto_batch_pictures_(\w+) ([\d.]+)\n", text)
        }
        return found["count"], found["sum"]


@contextlib.contextmanager
def served(kind: Kind, queue: int = 10_000) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        server = Server(kind, queue, folder)
        try:
            yield server
        finally:
            server.client.close()
            server.process.terminate()
            server.process.wait()


def load(server: Server, count: int, at_once: int, size: int) -> tuple[float, list[int]]:
    """The seconds that many requests took, and the codes of their answers."""
    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        codes = list(pool.map(lambda number: server.ask(number, size), range(count)))
    return time.monotonic() - began, codes


def batches(requests: int, rounds: int) -> None:
    cores = os.cpu_count() or 1
    kinds = [Kind(1, cores, 1), Kind(1, cores, MOST), Kind(cores, 1, 1), Kind(cores, 1, MOST)]
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(served(kind)) for kind in kinds]
        for size in SIZES:
            times: dict[Kind, list[float]] = {kind: [] for kind in kinds}
            means: dict[Kind, float] = {}
            for _ in range(rounds):
                for kind, server in zip(kinds, servers, strict=True):
                    before = server.batches()
                    seconds, codes = load(server, requests, AT_ONCE, size)
                    assert set(codes) == {200}, Counter(codes)
                    count, pictures = (b - a for a, b in zip(before, server.batches(), strict=True))
                    times[kind].append(seconds)
                    means[kind] = pictures / count
            first = statistics.median(times[kinds[0]])
            print(f"\n{requests} requests of {size} pixels, {AT_ONCE} at once\n")
            print("| server | seconds | a second | mean batch | faster |")
            print("| --- | --- | --- | --- | --- |")
            for kind in kinds:
                middle = statistics.median(times[kind])
                print(
                    f"| {kind.name} | {middle:.1f} | {requests / middle:.1f} | "
                    f"{means[kind]:.1f} | {first / middle:.2f} |",
                    flush=True,
                )


def overload() -> None:
    with served(Kind(1, os.cpu_count() or 1, MOST), queue=20) as server:
        seconds, codes = load(server, 100, 100, 512)
    told = ", ".join(f"{count} times {code}" for code, count in sorted(Counter(codes).items()))
    print(f"\noverload: 100 at once, with room for 20: {told}, in {seconds:.1f} s", flush=True)


def kill(requests: int = 200) -> None:
    with served(Kind(os.cpu_count() or 1, 1, MOST)) as server:
        workers = [
            child
            for child in psutil.Process(server.process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = [pool.submit(server.ask, number, 512) for number in range(requests)]
            while sum(each.done() for each in asked) < requests // 4:
                time.sleep(0.01)
            workers[0].kill()
            codes = [each.result() for each in asked]
        seconds = time.monotonic() - began
        (deaths,) = re.findall(
            r'impasto_worker_deaths\{queue="apply"\} (\S+)', server.client.get("/metrics").text
        )
    told = ", ".join(f"{count} times {code}" for code, count in sorted(Counter(codes).items()))
    print(
        f"\nkill: {requests} requests, a worker killed: {told}, in {seconds:.1f} s; {deaths} died"
    )


def start(rounds: int) -> None:
    found = []
    for _ in range(rounds):
        with served(Kind(1, os.cpu_count() or 1, MOST)) as server:
            found.append((server.healthy, server.painted))
    healthy, painted = (statistics.median(each) for each in zip(*found, strict=True))
    print(f"start: /healthz after {healthy:.2f} s, the first picture after {painted:.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--listen", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.listen:
        *numbers, folder = given.listen
        workers, threads, together, queue = map(int, numbers)
        listen(Kind(workers, threads, together), queue, folder)
        sys.exit()
    PHOTOS = [sample(name).read_bytes() for name in sample_names()["photos"]]
    STYLES = [style.name for style in read("samples").styles]
    parts = given.parts or PARTS
    if "start" in parts:
        start(given.rounds)
    if "batches" in parts:
        batches(given.requests, given.rounds)
    if "overload" in parts:
        overload()
    if "kill" in parts:
        kill()
