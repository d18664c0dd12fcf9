"""A real Ray cluster of three machines, all on 127.0.0.1: a head that only counts, and two that
paint with a thread each. `make cluster` runs it; Ray is no part of the other tests' environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.jobs.conftest import CALLS, AnyWorker, over, small, stylize, until

from impasto.errors import ImpastoError
from impasto.jobs.batcher import Batcher
from impasto.jobs.cluster import (
    CHOICES,
    CHOICES_HERE,
    CHOICES_LOOPBACK,
    Cluster,
    RemoteWorker,
)
from impasto.jobs.one_pass import Repaint
from impasto.jobs.queue import Jobs
from impasto.jobs.workers import Defect, Died, Worker
from impasto.settings import WorkSettings

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

ROOT = Path(__file__).parents[1]
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


class Machines:
    """The machines of the cluster; those that paint can die and be replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster as Machines_

        self._own: Any = Machines_()
        self._add(num_cpus=0, include_dashboard=False)
        self.address = self._own.address
        self.add()
        self.add()

    def _add(self, **choices: Any) -> Any:
        return self._own.add_node(node_ip_address="127.0.0.1", **choices)

    def add(self) -> None:
        self._add(num_cpus=1)

    def kill(self, id_: str) -> None:
        """All processes of a machine end at once, as when its plug is pulled."""
        (node,) = [node for node in self._own.worker_nodes if node.node_id == id_]
        self._own.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._own.shutdown()


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    own = {
        **CHOICES,
        **CHOICES_HERE,
        **CHOICES_LOOPBACK,
        "PYTHONPATH": str(ROOT),
        "http_proxy": "http://127.0.0.1:9",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        machines = Machines()
        yield machines
        machines.close()


@pytest.fixture(scope="module")
def cluster(machines: Machines) -> Iterator[Cluster]:
    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(machines.address)
    assert signal.getsignal(signal.SIGTERM) == before
    yield cluster
    cluster.close()


@pytest.fixture
def worker(cluster: Cluster) -> Iterator[RemoteWorker]:
    worker = cluster.start()
    yield worker
    worker.close()


def test_each_machine_that_paints_has_a_worker(cluster: Cluster) -> None:
    assert cluster.count == 2  # the head has no CPU to give
    workers = [cluster.start(), cluster.start()]
    for worker in workers:
        worker.run(f"{CALLS}count", 1, 0.0)
    assert len({worker.place for worker in workers}) == 2
    for worker in workers:
        worker.close()


class TestRemoteWorker(AnyWorker):
    """On a machine of the cluster."""


def test_events_arrive_while_the_call_goes_on(worker: RemoteWorker) -> None:
    worker.run(f"{CALLS}count", 1, 0.0)
    began, heard = time.monotonic(), []
    worker.run(f"{CALLS}count", 3, 1.0, hear=lambda _: heard.append(time.monotonic() - began))
    assert heard[0] < 0.9
    assert heard[2] - heard[1] > 0.5


def test_after_a_death_there_is_a_new_process(
    worker: RemoteWorker, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Died):
        worker.run(f"{CALLS}die")
    assert worker.run(f"{CALLS}count", 1, 0.0)[0] == [0]
    time.sleep(1)
    assert capfd.readouterr().out == ""  # Ray would tell of it where results go


def test_closing_from_another_thread_ends_a_call(cluster: Cluster) -> None:
    worker, died = cluster.start(), []

    def call() -> None:
        try:
            worker.run(f"{CALLS}count", 1000, 0.1)
        except Died:
            died.append(True)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(2)
    worker.close()
    thread.join(10)
    assert died
    with pytest.raises(Died):
        worker.run(f"{CALLS}count", 1, 0.0)


def test_a_batch_survives_a_killed_process_byte_for_byte(cluster: Cluster) -> None:
    photos = [small("kingfisher", 128 + number % 4 * 8, "JPEG") for number in range(200)]
    asked = [
        Repaint(data, "samples", {"great_wave": 1.0}, {}, name=f"{number}.jpg")
        for number, data in enumerate(photos)
    ]
    limits = WorkSettings(workers=2, queue=1000)
    with_cluster = Batcher(limits, cluster.start)
    futures = [with_cluster.submit(each) for each in asked]
    until(lambda: sum(future.done() for future in futures) >= 40, 120)
    victim = with_cluster.workers[0]
    assert isinstance(victim, RemoteWorker)
    cluster.ray.kill(victim.actor)
    there = [future.result(120)[0] for future in futures]
    assert with_cluster.deaths == 1
    with_cluster.close()
    here = Batcher(limits, lambda: Worker(1))
    assert there == [future.result(120)[0] for future in map(here.submit, asked)]
    here.close()


def test_bad_files_are_refused_with_their_sentence(cluster: Cluster) -> None:
    batcher = Batcher(WorkSettings(workers=1), cluster.start)
    good, style = small("kingfisher", 128), {"great_wave": 1.0}
    with pytest.raises(ImpastoError, match=r"^bad\.jpg"):
        batcher.submit(Repaint(b"hello", "samples", style, {}, name="bad.jpg"))
    cut = batcher.submit(Repaint(good[: len(good) // 2], "samples", style, {}, name="cut.png"))
    fine = batcher.submit(Repaint(good, "samples", style, {}))
    with pytest.raises(ImpastoError, match=r"cut\.png") as refused:
        cut.result(60)
    assert not isinstance(refused.value, Defect)
    assert fine.result(60)[0].startswith(b"\x89PNG")
    batcher.close()


@pytest.fixture
def files() -> dict[str, bytes]:
    return {"photo": small("kingfisher", 192), "painting": small("great_wave", 192)}


def test_a_job_shows_previews_and_cancel_keeps_the_picture(
    cluster: Cluster, files: dict[str, bytes], tmp_path: Path
) -> None:
    jobs = Jobs(tmp_path, WorkSettings(), cluster.start)
    job = jobs.submit(stylize(5000, size=128), files)
    until(lambda: jobs.preview(job.id) and jobs.get(job.id).step > 3)
    assert (jobs.preview(job.id) or b"").startswith(b"\xff\xd8")
    began = time.monotonic()
    jobs.cancel(job.id)
    ended = over(jobs, job)
    assert time.monotonic() - began < 10
    assert ended.state == "cancelled"
    assert jobs.result(job.id).read_bytes().startswith(b"\x89PNG")
    jobs.close()


def test_a_machine_that_dies_costs_a_job_one_more_try(
    machines: Machines, cluster: Cluster, files: dict[str, bytes], tmp_path: Path
) -> None:
    jobs = Jobs(tmp_path, WorkSettings(), cluster.start)
    job = jobs.submit(stylize(60, size=128), files)
    until(lambda: jobs.get(job.id).step > 3)
    (worker,) = jobs.workers
    assert isinstance(worker, RemoteWorker)
    place = worker.place
    machines.kill(place)
    until(lambda: jobs.get(job.id).is_over, 180)
    ended = jobs.get(job.id)
    assert (ended.state, ended.deaths) == ("done", 1)
    assert worker.place not in ("", place)
    jobs.close()
    machines.add()
    until(lambda: cluster.count == 2)


DRIVER = """
    import sys, time
    from pathlib import Path
    from impasto.jobs.cluster import Cluster
    from impasto.jobs.queue import Jobs
    from impasto.settings import WorkSettings
    from tests.jobs.conftest import small, stylize

    jobs = Jobs(Path(sys.argv[2]), WorkSettings(), Cluster(sys.argv[1]).start)
    if len(sys.argv) > 3:
        given = {"photo": small("kingfisher", 128), "painting": small("great_wave", 128)}
        for _ in range(3):
            jobs.submit(stylize(30), given)
    known = [job.id for state in ("done", "running", "waiting") for job in jobs.store.all(state)]
    while not all(jobs.get(id_).is_over for id_ in known):
        print(sum(jobs.get(id_).is_over for id_ in known), flush=True)
        time.sleep(0.05)
    print("over", *(jobs.get(id_).state for id_ in known), flush=True)
    jobs.close()
"""


def test_after_the_driver_was_killed_its_jobs_go_on(machines: Machines, tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    command = [sys.executable, str(script), machines.address, str(tmp_path / "jobs")]
    first = subprocess.Popen([*command, "new"], stdout=subprocess.PIPE, text=True)
    assert first.stdout
    while first.stdout.readline().strip() != "1":
        assert first.poll() is None
    first.kill()
    first.communicate()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert again.stdout.splitlines()[-1] == "over done done done"
    assert quiet(again.stderr) == ""


LOCAL = """
    import signal, sys
    from impasto.jobs.cluster import Cluster

    before = signal.getsignal(signal.SIGTERM)
    cluster = Cluster("local")
    assert signal.getsignal(signal.SIGTERM) == before
    worker = cluster.start()
    assert worker.run("tests.jobs.calls:count", 1, 0.0)[0] == [0]
    print("ready", flush=True)
    sys.stdin.readline()
    assert worker.run("tests.jobs.calls:count", 2, 0.0)[0] == [0, 1]
"""


def begun_here(tmp_path: Path) -> subprocess.Popen[str]:
    """A process that has begun Ray on this machine alone."""
    script = tmp_path / "here.py"
    script.write_text(textwrap.dedent(LOCAL))
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    own = subprocess.Popen(
        [sys.executable, str(script)],
        **pipes,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=ROOT,
        start_new_session=True,
    )
    assert own.stdout
    assert own.stdout.readline() == "ready\n", own.communicate()
    return own


def said(own: subprocess.Popen[str]) -> str:
    """What a process says from here to its end."""
    out, err = own.communicate("\n", timeout=60)
    return out + quiet(err)


def quiet(text: str) -> str:
    """Without what Ray says where there is no network."""
    lines = [line for line in text.splitlines() if "network_util" not in line]
    return "\n".join(lines)


def family(pid: int) -> list[psutil.Process]:
    own = psutil.Process(pid)
    return [own, *own.children(recursive=True)]


def test_begun_here_it_listens_on_this_machine_only(tmp_path: Path) -> None:
    own = begun_here(tmp_path)
    pids = {process.pid for process in family(own.pid)}
    listening = [
        c for c in psutil.net_connections("inet") if c.pid in pids and c.status == "LISTEN"
    ]
    assert listening
    assert {c.laddr.ip for c in listening if c.laddr} <= LOOPBACK
    assert said(own) == ""
    assert own.returncode == 0


def test_ctrl_c_in_the_terminal_leaves_workers_alone(tmp_path: Path) -> None:
    own = begun_here(tmp_path)
    for process in family(own.pid)[1:]:
        process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert said(own) == ""
    assert own.returncode == 0


def test_begun_here_it_ends_with_a_killed_process(tmp_path: Path) -> None:
    own = begun_here(tmp_path)
    all_ = family(own.pid)
    own.kill()
    own.communicate()
    _, left = psutil.wait_procs(all_, timeout=10)
    agents = [process for process in left if "Agent" in process.name()]  # it takes them minutes
    assert left == agents
    for process in agents:
        process.kill()


def test_a_cluster_that_cannot_be_reached_is_a_sentence() -> None:
    with pytest.raises(ImpastoError, match=r"no cluster answers at 127\.0\.0\.1:9 .*check"):
        Cluster("127.0.0.1:9")
    with pytest.raises(ImpastoError, match="give host:port"):
        Cluster("nonsense")


def test_a_folder_is_painted_on_a_cluster(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number}.jpg").write_bytes(small("owl", 96 + number, "JPEG"))
    (photos / "bad.jpg").write_text("no picture")
    command = [sys.executable, "-m", "impasto", "batch", str(photos), "--cluster", "local"]
    for way in (["--style", "great_wave"], ["--paint", str(photos / "1.jpg"), "--steps", "3"]):
        out = tmp_path / way[0]
        own = subprocess.run(
            [*command, "-o", str(out), "--size", "64", *way], capture_output=True, text=True
        )
        assert own.returncode == 1
        assert "12 painted, 1 failed" in own.stdout
        assert len(list(out.glob("*.png"))) == 12


def test_a_server_gives_both_kinds_of_work_to_a_cluster(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "impasto", "serve", "--cluster", "local", "--port", "0"]
    command += ["--folder", str(tmp_path / "jobs")]
    own = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert own.stderr
    try:
        url = next(line for line in own.stderr if "listening" in line).split()[-1]
        with httpx.Client(base_url=url, timeout=120, trust_env=False) as client:
            data = {"style": "great_wave", "size": "64"}
            answer = client.post("/v1/apply", data=data, files={"photo": small("owl")})
            assert answer.status_code == 200
            asked = {"command": "texture", "sample": "great_wave"}
            asked["settings"] = '{"size": [64, 64], "steps": 3}'
            files = {name: (None, value) for name, value in asked.items()}
            job = client.post("/v1/jobs", files=files).json()
            until(lambda: client.get(job["links"]["self"]).json()["state"] == "done", 120)
    finally:
        own.terminate()
        _, rest = own.communicate(timeout=90)
    assert own.returncode == 0
    assert quiet(rest) == ""
