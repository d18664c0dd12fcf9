"""The server as clients meet it: a real process, real requests, real signals."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import schemathesis
from PIL import Image

from impasto import read_record
from impasto.apps.cli.main import main
from tests.jobs.conftest import small, until

JOB = {"size": 64, "steps": 4}


class Server:
    """A server process on a port of its own, and a client for it."""

    def __init__(self, folder: Path, *options: str, token: str = "") -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "IMPASTO_TOKEN": token}
        command = [sys.executable, "-m", "impasto", "serve", "--port", "0"]
        command += ["--folder", str(folder), "--workers", "1", *options]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=environment, cwd=folder.parent
        )
        assert self.process.stderr
        self.said = self.process.stderr.readline()
        found = re.search(r"http://\S+", self.said)
        assert found, self.said + self.process.stderr.read()
        self.url = found[0]
        self.client = httpx.Client(base_url=self.url, timeout=60)

    def ready(self) -> Server:
        until(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()

    def end(self) -> int:
        self.client.close()
        self.process.terminate()
        _, rest = self.process.communicate(timeout=60)
        assert rest == ""
        return self.process.returncode

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def served(folder: Path, *options: str, token: str = "") -> Iterator[Server]:
    server = Server(folder, *options, token=token)
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served") / "jobs", "--queue", "20") as server:
        yield server.ready()
        assert server.end() == 0


@pytest.fixture(scope="module")
def photo() -> bytes:
    return small("kingfisher")


@pytest.fixture(scope="module")
def painting() -> bytes:
    return small("great_wave")


def apply(
    server: Server, photo: bytes, styles: list[str] | None = None, **fields: Any
) -> httpx.Response:
    data = {"style": styles or ["great_wave"], "size": "64", **fields}
    return server.client.post("/v1/apply", data=data, files={"photo": photo})


def begin(server: Server, photo: bytes, painting: bytes, **settings: Any) -> dict[str, Any]:
    answer = server.client.post(
        "/v1/jobs",
        data={"command": "stylize", "settings": json.dumps({**JOB, **settings}), "film": "true"},
        files={"photo": photo, "painting": painting},
    )
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    assert answer.headers["location"] == job["links"]["self"]
    return job


def ended(server: Server, job: Mapping[str, Any]) -> dict[str, Any]:
    def state() -> dict[str, Any]:
        answer: dict[str, Any] = server.client.get(job["links"]["self"]).json()
        return answer

    until(lambda: state()["state"] not in ("waiting", "running"))
    return state()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_photo_in_one_pass(server: Server, photo: bytes, tmp_path: Path) -> None:
    answer = apply(server, photo, ["great_wave:2", "night_cafe"], strength="0.8")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert opened(answer.content).size == (64, 36)
    (tmp_path / "a.png").write_bytes(answer.content)
    record = read_record(tmp_path / "a.png")
    assert record["styles"] == pytest.approx({"great_wave": 2 / 3, "night_cafe": 1 / 3})
    assert record["settings"]["strength"] == 0.8
    jpeg = apply(server, photo, format="jpg", keep_colors="luminance")
    assert opened(jpeg.content).format == "JPEG"
    full = server.client.post("/v1/apply", data={"style": "great_wave", "size": "full"},
                              files={"photo": photo})  # fmt: skip
    assert opened(full.content).size == (96, 54)


def test_the_same_in_json(server: Server, photo: bytes) -> None:
    asked = {"photo": base64.b64encode(photo).decode(), "style": {"great_wave": 1}, "size": 64}
    answer = server.client.post("/v1/apply", json=asked)
    assert answer.status_code == 200
    told = answer.json()
    assert told["size"] == [64, 36]
    assert base64.b64decode(told["picture"]) == apply(server, photo).content


def test_a_job_from_upload_to_film(server: Server, photo: bytes, painting: bytes) -> None:
    job = begin(server, photo, painting, steps=30)
    states: list[dict[str, Any]] = []
    with server.client.stream("GET", job["links"]["events"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                states.append(json.loads(line[6:]))
    assert states[-1]["state"] == "done"
    assert [state["step"] for state in states] == sorted(state["step"] for state in states)
    seen = [state["preview"] for state in states if "preview" in state]
    assert seen
    assert opened(base64.b64decode(seen[0])).format == "JPEG"
    done = server.client.get(job["links"]["self"]).json()
    assert done["result"]["steps"] == 30
    picture = server.client.get(done["links"]["result"])
    assert picture.headers["content-type"] == "image/png"
    assert opened(picture.content).size == (64, 36)
    film = server.client.get(done["links"]["film"])
    assert film.content[4:8] == b"ftyp"
    assert server.client.delete(job["links"]["self"]).json()["state"] == "gone"
    for link in done["links"].values():
        assert server.client.get(link).status_code == 410


def test_a_job_in_json_with_samples(server: Server) -> None:
    asked = {
        "command": "texture",
        "settings": {"size": [32, 32], "steps": 2},
        "paintings": [{"picture": "sample:night_cafe"}],
    }
    answer = server.client.post("/v1/jobs", json=asked)
    assert answer.status_code == 202
    assert ended(server, answer.json())["state"] == "done"


def test_cancel_keeps_what_is_painted(server: Server, photo: bytes, painting: bytes) -> None:
    job = begin(server, photo, painting, steps=5000)
    other = begin(server, photo, painting)
    until(lambda: server.client.get(job["links"]["self"]).json()["step"] > 1)
    assert server.client.get(f"{job['links']['self']}/preview").content[:2] == b"\xff\xd8"
    assert server.client.get(other["links"]["self"]).json()["place"] == 0
    assert server.client.get(f"{job['links']['self']}/result").status_code == 404
    server.client.delete(job["links"]["self"])
    told = ended(server, job)
    assert told["state"] == "cancelled"
    assert server.client.get(told["links"]["result"]).status_code == 200
    assert ended(server, other)["state"] == "done"


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 900 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def large() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "empty"),
        (b"some text", "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
        (small("kingfisher", 96, "JPEG")[:700], "damaged or cut short"),
        (bomb(), "decompression bomb"),
        (large(), "no more than 50 million are allowed"),
    ],
    ids=["empty", "text", "svg", "cut", "bomb", "large"],
)
def test_what_is_no_picture_gets_a_sentence(server: Server, data: bytes, told: str) -> None:
    answer = apply(server, data)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"styles": ["sunflowers"]}, "no style 'sunflowers'"),
        ({"styles": ["great_wave:x"]}, "great_wave is 'x'; give a number"),
        ({"size": "0"}, "size is 0"),
        ({"size": "big"}, "size is 'big'"),
        ({"strength": "2"}, "strength is 2.0"),
        ({"format": "exe"}, "format is wrong"),
        ({"network": "/etc/passwd"}, "no network '/etc/passwd'"),
        ({"colour": "red"}, "no field 'colour'"),
    ],
)
def test_wrong_fields_get_a_sentence(
    server: Server, photo: bytes, fields: dict[str, Any], told: str
) -> None:
    answer = apply(server, photo, **fields)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]


def test_other_wrong_requests(server: Server, photo: bytes) -> None:
    client = server.client
    assert client.post("/v1/apply", content=b"x", headers={"content-type": "text/plain"}).json()
    assert client.post("/v1/apply", content=b"x").status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/apply", content=b"--y\r\n", headers=broken).status_code in (400, 422)
    assert client.post("/v1/apply", json={"photo": "?", "style": {}}).status_code == 422
    assert client.post("/v1/apply", json=[]).status_code == 422
    assert client.post("/v1/apply", data={"style": "great_wave"}).status_code == 400
    text = {"style": (None, "great_wave"), "photo": (None, "/etc/passwd")}
    assert "curl -F" in client.post("/v1/apply", files=text).json()["detail"]
    train = client.post("/v1/jobs", data={"command": "train"}, files={"photo": photo})
    assert "no command 'train'" in train.json()["detail"]
    assert client.get("/v1/jobs/nobody").status_code == 404
    assert client.get("/v1/jobs/..%2f..%2fetc%2fpasswd").status_code == 404
    assert client.delete("/v1/jobs/nobody").status_code == 404
    assert client.get("/nothing").json() == {"detail": "Not Found"}


def test_what_is_made_to_hurt_gets_a_sentence(server: Server, photo: bytes) -> None:
    def job(**fields: str) -> httpx.Response:
        files = {"photo": photo, "painting": photo}
        return server.client.post("/v1/jobs", data={"command": "compare", **fields}, files=files)

    many = json.dumps({"strength": [0.5] * 200_000})
    for fields in (
        {"vary": many},
        {"settings": '{"a":' + "[" * 100_000},
        {"settings": '{"strength": "\\ud800"}'},
        {"vary": '{"size": [60000]}'},
        {"settings": '{"size": 6000}', "vary": '{"strength": [0.1, 0.2]}'},
    ):
        answer = job(**fields)
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"]
    assert "up to 16 pictures" in job(vary=many).json()["detail"]  # before any is looked at


def test_too_many_bytes(server: Server) -> None:
    long = b"\0" * (33 * 2**20)
    assert apply(server, long).status_code == 413

    def parts() -> Iterator[bytes]:
        yield b'--x\r\ncontent-disposition: form-data; name="photo"; filename="x"\r\n\r\n'
        for _ in range(40):
            yield long[: 2**20]

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = server.client.post("/v1/apply", content=parts(), headers=headers)
    assert (answer.status_code, answer.json()["detail"][:15]) == (413, "a request may h")


def test_under_overload_there_are_pictures_and_times_to_come_again(
    server: Server, photo: bytes
) -> None:
    with ThreadPoolExecutor(60) as pool:
        answers = list(pool.map(lambda _: apply(server, photo, size="256"), range(100)))
    codes = {answer.status_code for answer in answers}
    assert codes == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert "try again in" in answer.json()["detail"]
    metrics = server.client.get("/metrics").text
    assert 'impasto_refusals_total{reason="full"}' in metrics
    assert re.search(r"impasto_batch_pictures_count [1-9]", metrics)


def painting_processes(server: Server) -> list[psutil.Process]:
    return [each for each in server.workers() if "spawn_main" in " ".join(each.cmdline())]


def test_a_worker_killed_under_load_costs_nobody_an_answer(server: Server, photo: bytes) -> None:
    def one(number: int) -> int:
        if number == 10:
            smallest = min(painting_processes(server), key=lambda each: each.memory_info().rss)
            smallest.kill()
        return apply(server, photo, size="128").status_code

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(40))) == [200] * 40


def test_facts(server: Server) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok"}
    styles = server.client.get("/v1/styles").json()
    assert "great_wave" in styles["networks"]["samples"]
    page = server.client.get("/docs").text
    assert "POST /v1/apply" in page
    assert not re.search(r"(src|href)=.?(https?:)?//", page)
    metrics = server.client.get("/metrics").text
    for name in ("waiting", "running", "memory_bytes", "worker_deaths", "workers"):
        assert f"impasto_{name}{{" in metrics


def test_only_this_machine_is_answered_without_a_token(server: Server) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"host": "["}):
        assert server.client.get("/v1/styles", headers=headers).status_code == 403
    assert server.client.get("/v1/styles", headers={"host": "127.0.0.2"}).status_code == 200
    assert server.client.get("/v1/styles", headers={"host": "localhost:1"}).status_code == 200


def test_a_token(tmp_path: Path, photo: bytes) -> None:
    with served(tmp_path / "jobs", token="gehéim") as server:
        client = server.client
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/styles").status_code == 401
        assert client.get("/v1/styles", headers={"authorization": "Bearer x"}).status_code == 401
        known = {b"authorization": "Bearer gehéim".encode()}
        assert client.get("/v1/styles", headers=known).status_code == 200
        assert client.get("/v1/styles", auth=("anyone", "gehéim")).status_code == 200
        elsewhere = {"origin": "http://evil.example"}
        answer = client.get("/v1/styles", auth=("anyone", "gehéim"), headers=elsewhere)
        assert answer.status_code == 401
        assert client.post("/v1/apply", files={"photo": photo}).status_code == 401


def test_elsewhere_it_listens_with_a_token_only(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMPASTO_TOKEN", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--folder", str(tmp_path / "x")]) == 2
    assert "give a --token" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert main(["serve", "--port", port, "--folder", str(tmp_path / "y")]) == 2
    assert "cannot be listened on" in capsys.readouterr().err


def busy(server: Server) -> bool:
    lines = server.client.get("/metrics").text.splitlines()
    return any(
        line.startswith(("impasto_running", "impasto_waiting"))
        and "apply" in line
        and not line.endswith(" 0.0")
        for line in lines
    )


def test_sigterm_drains(tmp_path: Path, photo: bytes, painting: bytes) -> None:
    folder = tmp_path / "jobs"
    with served(folder) as server:
        server.ready()
        job = begin(server, photo, painting, steps=20_000)
        until(lambda: server.client.get(job["links"]["self"]).json()["step"] > 5)
        step = server.client.get(job["links"]["self"]).json()["step"]
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(apply, server, photo, size="256") for _ in range(4)]
            until(lambda: busy(server))
            server.process.send_signal(signal.SIGTERM)
            assert {answer.result().status_code for answer in answers} <= {200, 503}
        workers = server.process.wait(30)
        assert workers == 0
    with served(folder) as server:
        until(lambda: server.client.get(job["links"]["self"]).json()["step"] >= step)
        server.client.delete(job["links"]["self"])
        assert ended(server, job)["state"] == "cancelled"


def test_quick_to_start_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, impasto.apps.serve, impasto.jobs.queue, impasto.apps.cli.main;"
        "print('torch' in sys.modules, 'gradio' in sys.modules, 'ray' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert told.stdout.split() == ["False"] * 3


@pytest.mark.parametrize("command", ["serve", "web"])
def test_without_its_extra_it_names_it(command: str, tmp_path: Path) -> None:
    missing = "uvicorn" if command == "serve" else "gradio"
    code = f"import sys; sys.modules[{missing!r}] = None; from impasto.apps.cli.main import main; "
    code += f"sys.exit(main([{command!r}, '--folder', 'x']))"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert told.returncode == 2
    assert f"pip install 'impasto[{command}]'" in told.stderr


def test_openapi_is_kept(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    # What the schema allows may still be no picture, and a token is asked for by some servers.
    loose = [schemathesis.checks.positive_data_acceptance]
    found = 0
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr]
        found += 1
        if operation.path == "/v1/jobs/{id}/events":
            continue
        for case in _cases(operation):
            case.call_and_validate(base_url=server.url, timeout=60, excluded_checks=loose)
    assert found == 12


def _cases(operation: Any, count: int = 12) -> list[Any]:
    """Some requests that the schema allows, and some that it does not."""
    from hypothesis import HealthCheck, Phase, given, settings

    cases: list[Any] = []

    @given(operation.as_strategy())
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def collect(case: Any) -> None:
        cases.append(case)

    collect()
    return cases
