"""The page, as a real browser meets it: one server, one Chromium, small pictures."""

from __future__ import annotations

import json
import re
import shutil
import struct
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FileChooser,
    FilePayload,
    Page,
    Request,
    Route,
    expect,
    sync_playwright,
)

from impasto import read_record
from impasto.jobs.batcher import Batcher
from impasto.jobs.queue import Jobs
from impasto.jobs.store import State
from impasto.jobs.workers import Worker
from impasto.settings import ServeSettings, Settings, hints
from tests.jobs.conftest import small, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
PATIENCE = 60.0  # seconds, for machines that do much else
TABS = ("Paint", "Take apart", "My pictures")

# The server runs in this process, and Gradio's queue uses what pandas warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting':DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The copy keyword is deprecated:DeprecationWarning"),
]


@dataclass
class Site:
    """A server that runs."""

    url: str
    jobs: Jobs
    foreign: list[str] = field(default_factory=list)

    def ask(self, path: str, data: bytes | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def clear(self) -> None:
        """Cancels what a test has left, so that the next does not wait for it."""
        left = [*self.jobs.store.all("waiting"), *self.jobs.store.all("running")]
        for job in left:
            self.jobs.cancel(job.id)
        for job in left:
            self.wait(job.id, "cancelled", "done", "failed")

    def wait(self, id: str, *states: State) -> None:  # noqa: A002
        until(lambda: self.jobs.get(id).state in states)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    import uvicorn

    from impasto.apps.web import build

    settings = ServeSettings(queue=5, upload="2M", seconds=120.0)
    jobs = Jobs(tmp_path_factory.mktemp("web"), settings, Worker)
    batcher = Batcher(settings, Worker)
    config = uvicorn.Config(
        build(jobs, batcher, settings), port=0, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Site(f"http://127.0.0.1:{port}", jobs)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        jobs.close(5)
        batcher.close(5)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "there is no Chromium; make installs it where apt-get does, else install it"
    with sync_playwright() as playwright:
        expect.set_options(timeout=1000 * PATIENCE)
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


Visit = Callable[..., Page]


@pytest.fixture
def visit(site: Site, browser: Browser) -> Iterator[Visit]:
    """Opens the page in a browser of its own; no script may fail, and no other host be asked."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def open_page(viewport: Any = None, **ways: Any) -> Page:
        context = browser.new_context(
            viewport=viewport or DESK,  # type: ignore[arg-type]
            accept_downloads=True,
            **ways,
        )
        context.set_default_timeout(1000 * PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
        own = (site.url, "blob:", "data:")

        def asked(request: Request) -> None:
            if not request.url.startswith(own):
                wrong.append(request.url)

        page.on("request", asked)
        page.on("websocket", lambda socket: wrong.append(socket.url))
        page.goto(site.url)
        page.wait_for_selector("#stage .stage:not([inert])")
        page.wait_for_selector("#styles .tiles:not([inert])")
        return page

    yield open_page
    for context in contexts:
        context.close()
    site.clear()
    assert wrong == []


def payload(data: bytes, name: str = "bird.jpg") -> FilePayload:
    return {"name": name, "mimeType": "", "buffer": data}


def given(page: Page, data: bytes, name: str = "bird.jpg") -> None:
    """Choose a photo."""
    page.set_input_files("#stage .choose >> nth=0", files=payload(data, name))


def with_photo(page: Page, longer: int = 96) -> Page:
    given(page, small("kingfisher", longer, "JPEG"))
    expect(page.locator("#styles .tile[data-photo]")).to_have_count(5)
    return page


def chosen(page: Page, style: str = "great_wave") -> Page:
    page.check(f"#styles input[value={style}]", force=True)
    return page


def painting(page: Page, steps: int = 3000, film: bool = False) -> str:
    """Have a tiny photo painted for long; returns the job's id."""
    chosen(with_photo(page)).get_by_label("As the photo").first.check()
    page.get_by_role("button", name="More settings").click()
    page.get_by_label("Most steps").fill(str(steps))
    page.get_by_role("button", name="More settings").click()
    if film:
        page.get_by_label("Make a film of it").first.check()
    return submitted(page, "#paint-it")


def submitted(page: Page, button: str) -> str:
    with page.expect_request("**/pictures/*") as asked:
        page.click(button)
    return asked.value.url.split("/")[4]


def paints(page: Page, stage: str = "#stage") -> None:
    expect(page.locator(f"{stage} .words")).to_contain_text("Step")


def test_a_photo_becomes_a_picture_at_a_tap(visit: Visit, tmp_path: Path) -> None:
    page = chosen(with_photo(visit()))
    picture = page.locator("#stage .picture")
    expect(picture).to_have_attribute("alt", "Your photo in the style of The Great Wave")
    assert picture.evaluate("image => Math.max(image.naturalWidth, image.naturalHeight)") == 512
    page.get_by_label("As the photo").first.check()
    page.wait_for_function("document.querySelector('#stage .picture').naturalWidth == 96")
    page.get_by_role("button", name="Mix with a second style").click()
    page.locator("#second").get_by_label("The Night Café", exact=True).check()
    expect(picture).to_have_attribute(
        "alt", "Your photo in the style of The Great Wave and The Night Café"
    )
    with page.expect_download() as download:
        page.click("#stage .save-png")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.name == "impasto-the-great-wave-and-the-night-cafe.png"
    assert read_record(path)["styles"] == {"great_wave": 0.5, "night_cafe": 0.5}
    with page.expect_download() as download:
        page.click("#stage .save-jpg")
    download.value.save_as(tmp_path / "it.jpg")
    with Image.open(tmp_path / "it.jpg") as image:
        assert image.format == "JPEG"


def test_a_painting_grows_survives_a_reload_and_is_stopped(
    site: Site, visit: Visit, tmp_path: Path
) -> None:
    page = visit()
    job = painting(page, film=True)
    picture = page.locator("#stage .picture")
    paints(page)
    expect(page.locator("#stage .words")).to_contain_text("left")
    frames: set[str | None] = set()

    def grown() -> bool:
        frames.add(picture.get_attribute("src"))
        return len(frames) >= 3

    until(grown)
    page.reload()
    paints(page)
    expect(picture).to_have_attribute("src", re.compile(f"^pictures/{job}/preview.jpg"))

    before = site.jobs.get(job).step
    with page.expect_response("**/cancel"):
        page.click("#stage .stop")
    asked = site.jobs.get(job).step
    site.wait(job, "cancelled")
    ended = site.jobs.get(job)
    assert before <= ended.step < asked + 100
    expect(page.locator("#stage .words")).to_have_text(
        f"Stopped after {ended.step} steps. The picture so far is kept."
    )
    film = page.locator("#stage .film")
    expect(film).to_be_visible()
    page.wait_for_function("document.querySelector('#stage .film').readyState >= 2")
    assert film.evaluate("film => film.duration") > 0
    page.get_by_role("button", name="See the picture").click()
    expect(picture).to_be_visible()
    with page.expect_download() as download:
        page.click("#stage .save-png")
    download.value.save_as(tmp_path / "it.png")
    record = read_record(tmp_path / "it.png")
    assert record["command"] == "stylize"
    assert record["stopped"] == "interrupted"
    assert record["settings"]["steps"] == 3000

    page.reload()
    page.get_by_role("tab", name="My pictures").click()
    card = page.locator(".cards li")
    expect(card).to_have_count(1)
    card.get_by_role("button").first.click()
    expect(page.locator("#stage")).to_be_visible()
    page.get_by_role("tab", name="My pictures").click()
    card.get_by_role("button", name="Remove").click()
    expect(card).to_have_count(0)
    assert site.jobs.get(job).state == "gone"


def test_two_take_turns(site: Site, visit: Visit) -> None:
    first, second = visit(), visit(PHONE, has_touch=True, is_mobile=True)
    one = painting(first)
    paints(first)
    two = painting(second, steps=3)
    expect(second.locator("#stage .words")).to_have_text("Waiting for its turn: 1 before you.")
    first.click("#stage .stop")
    site.wait(one, "cancelled")
    expect(second.locator("#stage .words")).to_have_text("Done after 3 steps.")
    assert site.jobs.get(two).state == "done"


def test_photos_and_paintings_are_taken_apart(site: Site, visit: Visit) -> None:
    page = with_photo(visit())
    page.get_by_role("tab", name="Take apart").click()
    page.get_by_label("2 · small marks").check()
    job = submitted(page, "#take-apart")
    order = site.jobs.get(job).order
    assert (order.command, order.settings) == ("reconstruct", {"layers": ["relu2_1"]})
    paints(page, "#stage-apart")
    page.click("#stage-apart .stop")
    expect(page.locator("#stage-apart .save-png")).to_be_visible()

    page.set_input_files("#textures .add input", files=payload(small("kingfisher", 64), "mine.png"))
    expect(page.locator("#textures .own input")).to_be_checked()
    job = submitted(page, "#grow")
    order = site.jobs.get(job).order
    assert (order.command, order.paintings) == ("texture", (("painting", 1.0),))
    paints(page, "#stage-apart")
    page.click("#stage-apart .stop")
    site.wait(job, "cancelled")
    page.get_by_role("tab", name="Paint", exact=True).click()
    expect(page.locator("#stage .words")).to_have_text("Now press “Paint it”.")


class _Slow:
    """Holds back the events that a page sends, as a slow network would."""

    def __init__(self, page: Page) -> None:
        self.page, self.held = page, list[Route]()
        page.route("**/queue/join*", lambda route: self.held.append(route))

    def sent(self, count: int) -> list[Any]:
        """Wait until so many are held, and tell the values that are in each."""
        end = time.monotonic() + PATIENCE
        while len(self.held) < count:
            assert time.monotonic() < end
            self.page.wait_for_timeout(50)
        return [json.loads(route.request.post_data or "")["data"] for route in self.held]

    def let_go(self, *indices: int) -> None:
        """Let these through, one after the other, with time for the answer to each."""
        for index in indices:
            with self.page.expect_response("**/queue/join*"):
                self.held[index].continue_()
            self.page.wait_for_timeout(500)


def test_a_slow_reload_loses_nothing(visit: Visit) -> None:
    page = chosen(with_photo(visit()))
    picture = page.locator("#stage .picture")
    expect(picture).to_have_attribute("alt", "Your photo in the style of The Great Wave")
    slow = _Slow(page)
    page.reload()
    slow.sent(1)
    for part in ("#stage .stage", "#styles .tiles"):
        expect(page.locator(f"{part}[inert]")).to_have_count(1)
    page.get_by_label("1024").first.check()
    page.wait_for_timeout(500)
    assert len(slow.held) == 1
    slow.let_go(0)
    _, turned = slow.sent(2)
    assert (turned[0]["style"], turned[1]) == ("great_wave", "1024")
    slow.let_go(1)
    expect(picture).to_have_attribute("alt", "Your photo in the style of The Great Wave")
    page.wait_for_function("document.querySelector('#stage .picture').naturalWidth == 1024")


def test_what_is_chosen_is_not_lost_before_it_is_answered(visit: Visit) -> None:
    page = with_photo(visit())
    slow = _Slow(page)
    page.check("#styles input[value=great_wave]", force=True)
    page.get_by_label("As the photo").first.check()
    page.click("#paint-it")
    one, two, three = slow.sent(3)
    assert one[0]["style"] == two[0]["style"] == three[0]["style"] == "great_wave"
    assert (one[1], two[1]) == ("512", "full")
    slow.let_go(0, 1)
    picture = page.locator("#stage .picture")
    expect(picture).to_have_attribute("alt", "Your photo in the style of The Great Wave")
    slow.let_go(2)
    paints(page)


def test_of_two_taps_the_later_stays(visit: Visit) -> None:
    page = with_photo(visit())
    slow = _Slow(page)
    page.check("#styles input[value=great_wave]", force=True)
    slow.sent(1)
    page.check("#styles input[value=night_cafe]", force=True)
    page.get_by_label("As the photo").first.check()
    slow.sent(2)
    slow.let_go(0)
    expect(page.locator("#styles input[value=night_cafe]")).to_be_checked()
    expect(page.locator("#stage .words")).to_have_text("Now tap a style.")
    slow.sent(3)
    slow.let_go(1, 2)
    picture = page.locator("#stage .picture")
    expect(picture).to_have_attribute("alt", "Your photo in the style of The Night Café")
    expect(page.locator("#styles input[value=night_cafe]")).to_be_checked()


def _bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_what_cannot_be_painted_gets_a_sentence(visit: Visit) -> None:
    page = visit()
    alert = page.locator("#stage [role=alert]")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://example.com/a.png"/></svg>'
    for name, data, words in [
        ("cut.jpg", small("kingfisher", 256, "JPEG")[:3000], "cut.jpg is damaged or cut short"),
        ("notes.txt", b"hello", "notes.txt is not a picture"),
        ("bomb.png", _bomb(), "bomb.png claims more than"),
        ("drawing.svg", svg, "drawing.svg is not a picture"),
        ("large.bmp", b"BM" + bytes(2**21), "This file is larger than 2M"),
    ]:
        given(page, data, name)
        expect(alert).to_contain_text(words)
        expect(alert).to_be_visible()
    page.click("#paint-it")
    expect(alert).to_have_text("Choose a style first, or a painting of your own.")
    chosen(with_photo(page)).get_by_role("button", name="More settings").click()
    page.get_by_label("Most steps").fill("-1")
    page.click("#paint-it")
    expect(alert).to_have_text("Steps is -1; give a whole number of at least 0.")


def test_the_page_says_when_too_much_waits(site: Site, visit: Visit) -> None:
    page = visit()
    painting(page)
    paints(page)
    end = time.monotonic() + PATIENCE
    while site.jobs.waiting < site.jobs.limits.queue:
        assert time.monotonic() < end
        page.click("#paint-it")
        page.wait_for_timeout(500)
    page.click("#paint-it")
    expect(page.locator("#stage [role=alert]")).to_contain_text("5 jobs wait already; try again in")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(visit: Visit, scheme: str) -> None:
    page = chosen(with_photo(visit(color_scheme=scheme)))
    page.click("#stage .keep")
    page.get_by_role("button", name="Mix with a second style").click()
    page.get_by_role("button", name="More settings").click()
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(300)  # for what fades in
        found = Axe().run(page).response["violations"]
        bad = [each for each in found if each["impact"] in ("serious", "critical")]
        assert [(each["id"], [n["html"] for n in each["nodes"]]) for each in bad] == [], tab
        unnamed = page.evaluate(
            "[...document.querySelectorAll('img:not([hidden]), fieldset')].filter(each =>"
            " each.checkVisibility() && !(each.alt || each.ariaLabel"
            " || each.querySelector('legend'))).map(each => each.outerHTML)"
        )
        assert unnamed == []


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_nothing_scrolls_sideways(visit: Visit, viewport: Any) -> None:
    page = chosen(with_photo(visit(viewport, is_mobile=viewport is PHONE)))
    page.click("#stage .keep")
    page.get_by_role("button", name="Mix with a second style").click()
    page.get_by_role("button", name="More settings").click()
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(200)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= viewport["width"], tab
        assert page.evaluate("window.innerWidth") == viewport["width"]


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit()

    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    choosers: list[FileChooser] = []
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    tab_to("#stage .drop .choose")
    end = time.monotonic() + PATIENCE
    while not choosers:
        assert time.monotonic() < end
        page.keyboard.press("Enter")
        page.wait_for_timeout(1000)
    choosers[0].set_files(payload(small("kingfisher", format="JPEG")))
    expect(page.locator("#styles .tile[data-photo]")).to_have_count(5)
    tab_to("#styles input[type=radio]")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#stage .save-png")).to_be_visible()
    tab_to("#paint-it")
    page.keyboard.press("Enter")
    paints(page)
    page.keyboard.press("Shift+Tab")
    page.evaluate("document.querySelector('#tabs button').focus()")
    tab_to("#stage .stop")
    page.keyboard.press("Enter")
    expect(page.locator("#stage .words")).to_contain_text("Stopped")


def test_files_are_sent_and_never_fetched(site: Site, visit: Visit) -> None:
    del visit
    file = {
        "path": "x.png",
        "url": "http://example.com/x.png",
        "meta": {"_type": "gradio.FileData"},
    }
    for path in ("queue/join", "queue/join/"):
        message = {"data": [file], "fn_index": 0, "session_hash": "here"}
        status, told = site.ask(f"gradio_api/{path}", json.dumps(message).encode())
        assert (status, told["error"]) == (400, "Files are sent by the page, and not named here.")
    for path in (
        "monitoring",
        "gradio_api/upload",
        "gradio_api/run/predict",
        "gradio_api/file=/etc/passwd",
        "gradio_api/proxy=http://example.com",
        "gradio_api/runs",
        "docs",
        "openapi.json",
        "photos/../../etc/passwd",
        "pictures/none/picture.png",
    ):
        assert site.ask(path)[0] == 404, path


def test_the_form_has_every_setting_and_sends_what_was_changed(site: Site) -> None:
    del site  # Gradio is imported as `build` prepares it
    from impasto.apps.web.form import Form

    without = ("device", "memory", "weights")
    form = Form(Settings, without)
    names = [control.name for control in form.controls]
    assert {*names} == {*hints(Settings)} - {*without, "size"}
    assert all(control.component.info for control in form.controls)
    values = [control.first for control in form.controls]
    assert form.changed(values) == {}
    for name, value in {"steps": 20, "levels": "3", "style_layers": "relu1_1:2,relu2_1"}.items():
        values[names.index(name)] = value
    changed = form.changed(values)
    assert changed == {"steps": 20, "levels": 3, "style_layers": {"relu1_1": 2.0, "relu2_1": 1.0}}
    assert Settings(**changed).levels == 3
