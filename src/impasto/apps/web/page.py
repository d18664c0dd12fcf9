"""What is on the page, and what happens when somebody touches it."""

from __future__ import annotations

import contextlib
import html
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from fastapi import FastAPI

from impasto.apps.web.form import Form
from impasto.apps.web.photos import Photos
from impasto.apps.web.routes import STYLES, sentence
from impasto.errors import ImpastoError
from impasto.jobs.orders import SAMPLE, Order
from impasto.jobs.queue import Jobs
from impasto.jobs.store import Gone, Unknown
from impasto.settings import FULL, ServeSettings, Settings, parse_memory

OWN = "own"
"""The style that is a painting of the user's own."""

MOST = 60
"""The most pictures that a browser remembers."""

# Chosen by whoever runs the page, or shown elsewhere on it.
_ELSEWHERE = ("device", "memory", "weights", "encoder", "shifts", "size", "strength", "keep_colors")

_TITLES = {
    "cafe_terrace_at_night": "Café Terrace at Night",
    "church_at_auvers": "The Church at Auvers",
    "composition_viii": "Composition VIII",
    "great_wave": "The Great Wave",
    "night_cafe": "The Night Café",
}
_SIZES = [("512", "512"), ("1024", "1024"), ("2048", "2048"), ("As the photo", FULL)]
_COLOURS = [("The painting's", ""), ("The photo's", "luminance"), ("In between", "histogram")]
_DEPTHS = [
    ("1 · colours and edges", "relu1_1"),
    ("2 · small marks", "relu2_1"),
    ("3 · patterns", "relu3_1"),
    ("4 · parts of things", "relu4_1"),
    ("5 · the gist", "relu5_1"),
]
# `turn` counts what was chosen; the page drops answers that come after a later choice.
_NOTHING: dict[str, Any] = {
    "photo": "",
    "painting": "",
    "style": "",
    "view": {},
    "apart": {},
    "turn": 0,
}
_HERE = Path(__file__).parent
_SCRIPT = '<script src="web/page.js"></script>'
_SYSTEM = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "sans-serif")


def mounted(app: FastAPI, jobs: Jobs, photos: Photos, settings: ServeSettings) -> FastAPI:
    """The app with the page at its root."""
    theme = gr.themes.Base(
        primary_hue="slate",
        neutral_hue="stone",
        radius_size="lg",
        font=_SYSTEM,
        font_mono=("ui-monospace", "monospace"),
    )
    gr.mount_gradio_app(
        app,
        _Page(jobs, photos, settings).blocks,
        "/",
        theme=theme,
        head='<link rel="stylesheet" href="web/page.css"><link rel="icon" href="favicon.ico">'
        '<meta name="color-scheme" content="light dark">',
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        show_error=True,
        max_file_size=parse_memory(settings.upload),
    )
    return app


class _Page:
    """The controls, and the functions that they call. All are quick: jobs do the work."""

    def __init__(self, jobs: Jobs, photos: Photos, settings: ServeSettings) -> None:
        self.jobs, self.photos = jobs, photos
        self.most = parse_memory(settings.upload)
        with gr.Blocks(
            title="impasto", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True
        ) as self.blocks:
            self._lay_out()
            self._connect()

    # What is there.

    def _lay_out(self) -> None:
        self.now = gr.BrowserState(_NOTHING, storage_key="impasto-now", secret="impasto")
        self.history = gr.BrowserState([], storage_key="impasto-history", secret="impasto")
        gr.HTML(
            '<h1>impasto</h1><p class="lead">Your photo, painted.</p>',
            apply_default_css=False,
            elem_id="title",
        )
        with gr.Tabs(elem_id="tabs") as self.tabs:
            with gr.Tab("Paint", id="paint"):
                self._lay_out_paint()
            with gr.Tab("Take apart", id="apart"):
                self._lay_out_apart()
            with gr.Tab("My pictures", id="pictures") as self.pictures_tab:
                self.cards = gr.HTML(
                    value=[],
                    html_template=_CARDS,
                    head=_SCRIPT,
                    js_on_load="impasto.cards(element, trigger, props, watch, ['open', 'forget'])",
                    apply_default_css=False,
                )

    def _lay_out_paint(self) -> None:
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=8, min_width=320, elem_classes="left"):
                self.stage = _stage("stage", self.most)
            with gr.Column(scale=5, min_width=320, elem_classes="right"):
                self.styles = _styles("styles", "Style", self.most)
                with gr.Column(elem_classes="card"):
                    self.size = gr.Radio(_SIZES, value="512", label="Longer side, in pixels")
                    self.colours = gr.Radio(_COLOURS, value="", label="Colours")
                    self.quick = gr.Slider(
                        0, 1, 1, step=0.05, label="Strength", info="0 is your photo."
                    )
                    with gr.Accordion("Mix with a second style", open=False):
                        others = [("None", ""), *((title(name), name) for name in STYLES)]
                        self.other = gr.Radio(
                            others, value="", label="Second style", elem_id="second"
                        )
                        self.share = gr.Slider(
                            0, 1, 0.5, step=0.05, label="Share of the second style"
                        )
                with gr.Column(elem_classes="card"):
                    gr.HTML(
                        "<h2>Paint it properly</h2><p>Stroke by stroke, in some minutes. You can "
                        "watch, and stop when you like it.</p>",
                        apply_default_css=False,
                    )
                    self.strength = gr.Slider(
                        0,
                        1,
                        0.5,
                        step=0.05,
                        label="Strength of the brush",
                        info="0 is your photo, 1 paints freely.",
                    )
                    self.film = gr.Checkbox(False, label="Make a film of it")
                    with gr.Accordion("More settings", open=False, elem_id="more"):
                        self.preset = gr.Radio(
                            [
                                ("impasto's own", ""),
                                ("Gatys 2015", "gatys"),
                                ("lecture", "lecture"),
                            ],
                            value="",
                            label="Preset",
                            info="Settings as published, instead of impasto's own.",
                        )
                        self.form = Form(Settings, _ELSEWHERE)
                    self.paint = gr.Button("Paint it", variant="primary", elem_id="paint-it")

    def _lay_out_apart(self) -> None:
        with gr.Row(elem_classes="two"):
            with gr.Column(scale=8, min_width=320, elem_classes="left"):
                self.stage_apart = _stage("stage-apart", self.most)
            with gr.Column(scale=5, min_width=320, elem_classes="right"):
                with gr.Column(elem_classes="card"):
                    gr.HTML(
                        "<h2>Layers of your photo</h2><p>What is left of your photo at each depth "
                        "of the network that looks at it.</p>",
                        apply_default_css=False,
                    )
                    self.depth = gr.Radio(_DEPTHS, value="relu3_1", label="Depth")
                    self.film_layers = gr.Checkbox(False, label="Make a film of it")
                    self.take = gr.Button("Take it apart", variant="primary", elem_id="take-apart")
                with gr.Column(elem_classes="card"):
                    gr.HTML(
                        "<h2>Texture of a painting</h2><p>Its colours and strokes, without what it "
                        "shows.</p>",
                        apply_default_css=False,
                    )
                    self.textures = _styles("textures", "Painting", self.most)
                    self.side = gr.Radio(
                        [("256", 256), ("512", 512)], value=256, label="Side, in pixels"
                    )
                    self.tileable = gr.Checkbox(False, label="Make it repeat without a seam")
                    self.grow = gr.Button("Grow a texture", variant="primary", elem_id="grow")

    # What happens.

    def _connect(self) -> None:
        quick = [self.size, self.colours, self.quick, self.other, self.share]
        shown = [self.now, self.stage, self.stage_apart, self.styles, self.textures]
        ways: dict[str, Any] = {
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        self.blocks.load(self.reload, [self.now, self.history], [*shown, self.cards], **ways)
        with_now = {**ways, "js": "impasto.withNow"}
        choosers = (self.stage, self.stage_apart, self.styles, self.textures)
        turned = [chooser.choose for chooser in choosers]
        turned += [slider.release for slider in (self.quick, self.share)]
        turned += [radio.input for radio in (self.size, self.colours, self.other)]
        for happened in turned:
            happened(self.turned, [self.now, *quick], shown, trigger_mode="always_last", **with_now)
        history = [self.history, self.cards]
        more = [self.size, self.colours, self.other, self.share, self.strength, self.film]
        more += [self.preset, *self.form.components]
        self.paint.click(
            self.paints, [self.now, self.history, *more], [*shown, *history], **with_now
        )
        self.take.click(
            self.takes_apart,
            [self.now, self.history, self.depth, self.film_layers],
            [*shown, *history],
            **with_now,
        )
        self.grow.click(
            self.grows,
            [self.now, self.history, self.side, self.tileable],
            [*shown, *history],
            **with_now,
        )
        self.cards.open(self.opens, [self.now], [*shown, self.tabs], **with_now)
        self.stage.keep(self.keeps, [self.history], history, **ways)
        self.cards.forget(self.forgets, [self.history], history, **ways)

    def shown(self, now: dict[str, Any], error: str = "") -> list[Any]:
        """The values of what every event changes."""
        styles = {name: now[name] for name in ("photo", "painting", "style", "turn")}
        common = {"now": now, "error": error, "at": time.time()}
        hint = ""
        if now["photo"] and not now["view"]:
            hint = "Now press “Paint it”." if now["style"] == OWN else "Now tap a style."
        stages = [
            {**common, "view": now["view"], "hint": hint},
            {**common, "view": now["apart"], "hint": ""},
        ]
        return [now, *stages, styles, {**styles, "photo": ""}]

    def reload(self, now: Any, history: Any) -> list[Any]:
        """What was there before the page was loaded anew."""
        now = {**_NOTHING, **(now if isinstance(now, dict) else {}), "turn": 0}
        for role in ("photo", "painting"):
            if not self.photos.knows(str(now[role])):
                now[role] = ""
        if not now["painting"] and now["style"] == OWN:
            now["style"] = ""
        for place in ("view", "apart"):
            view = now[place]
            is_job = view.get("kind") == "job" and self._is_here(view.get("id"))
            if not is_job and not (view.get("kind") == "quick" and now["photo"]):
                now[place] = {}
        history = [each for each in history if self._is_listed(each)] if history else []
        return [*self.shown(now), history]

    def turned(self, now: dict[str, Any], *quick: Any) -> list[Any]:
        """A photo, a painting or a style was chosen, or a control turned.

        The photo is shown in the style, if it is one of a network.
        """
        size, colours, strength, other, share = quick
        if now["photo"] and now["style"] in STYLES:
            shares = _shares(now["style"], other, share)
            asked = [("style", f"{name}:{each:g}") for name, each in shares]
            asked += [("size", size), ("strength", f"{strength:g}")]
            asked += [("colors", colours)] if colours else []
            names = " and ".join(title(name) for name, _ in shares)
            path = f"photos/{now['photo']}/painted"
            view = {"kind": "quick", "base": path, "query": urlencode(asked), "title": names}
            now = {**now, "view": view}
        elif now["style"] == OWN:
            now = {**now, "view": {}}
        return self.shown(now)

    def paints(self, now: dict[str, Any], history: list[Any], *values: Any) -> list[Any]:
        """Have the photo painted by a job."""
        size, colours, other, share, strength, film, preset, *more = values

        def order() -> tuple[Order, dict[str, str], str]:
            if not now["style"]:
                raise ImpastoError("choose a style first, or a painting of your own")
            chosen: dict[str, Any] = {"size": size if size == FULL else int(size)}
            chosen |= {"strength": strength} if strength != Settings.strength else {}
            chosen |= {"keep_colors": colours} if colours else {}
            chosen |= {"preset": preset} if preset else {}
            chosen |= self.form.changed(more)
            shares = _shares(now["style"], other, share)
            files = {"photo": now["photo"]}
            files |= {"painting": now["painting"]} if now["style"] == OWN else {}
            paintings = tuple((_named(name), each) for name, each in shares)
            names = " and ".join(title(name) for name, _ in shares)
            made = Order("stylize", chosen, ("photo",), paintings, film=bool(film))
            return made, files, names

        return self._submitted(now, history, "view", order)

    def takes_apart(
        self, now: dict[str, Any], history: list[Any], depth: str, film: bool
    ) -> list[Any]:
        """Have the photo made again from one layer."""

        def order() -> tuple[Order, dict[str, str], str]:
            made = Order("reconstruct", {"layers": [depth]}, ("photo",), film=bool(film))
            return made, {"photo": now["photo"]}, f"Layer {depth[4]} of your photo"

        return self._submitted(now, history, "apart", order)

    def grows(
        self, now: dict[str, Any], history: list[Any], side: int, tileable: bool
    ) -> list[Any]:
        """Have a texture of the painting grown."""

        def order() -> tuple[Order, dict[str, str], str]:
            if not now["style"]:
                raise ImpastoError("choose a painting first")
            chosen: dict[str, Any] = {"size": [int(side), int(side)]}
            chosen |= {"tileable": True} if tileable else {}
            files = {"painting": now["painting"]} if now["style"] == OWN else {}
            made = Order("texture", chosen, paintings=((_named(now["style"]), 1.0),))
            return made, files, f"Texture of {title(now['style'])}"

        return self._submitted(now, history, "apart", order)

    def _submitted(
        self,
        now: dict[str, Any],
        history: list[Any],
        place: str,
        order: Callable[[], tuple[Order, dict[str, str], str]],
    ) -> list[Any]:
        told = ""
        try:
            made, roles, name = order()
            if not roles.get("photo", "none"):
                raise ImpastoError("choose a photo first")
            files = {role: self.photos.data(id_) for role, id_ in roles.items()}
            job = self.jobs.submit(made, files)
        except ImpastoError as error:
            told = sentence(str(error))
        else:
            view = {"kind": "job", "id": job.id, "title": name}
            now = {**now, place: view}
            history = _first({**view, "place": place, "at": time.time()}, history)
        return [*self.shown(now, told), history, history]

    def keeps(self, event: gr.EventData, history: list[Any]) -> list[Any]:
        """Remember a picture that was painted in one pass."""
        view = {name: str(event._data[name]) for name in ("kind", "base", "query", "title")}
        kept = [each for each in history if {**each, **view} != each]
        history = _first({**view, "place": "view", "at": time.time()}, kept)
        return [history, history]

    def opens(self, event: gr.EventData, now: dict[str, Any]) -> list[Any]:
        """Show one of the pictures again."""
        picture = event._data["picture"]
        place = "apart" if picture.get("place") == "apart" else "view"
        now = {**now, place: {n: v for n, v in picture.items() if n not in ("place", "at")}}
        tab = "apart" if place == "apart" else "paint"
        return [*self.shown(now), gr.Tabs(selected=tab)]

    def forgets(self, event: gr.EventData, history: list[Any]) -> list[Any]:
        """Remove a picture, and its job."""
        picture = event._data["picture"]
        if picture.get("kind") == "job":
            with contextlib.suppress(Unknown, Gone):
                self.jobs.remove(str(picture.get("id")))
        history = [each for each in history if each.get("at") != picture.get("at")]
        return [history, history]

    def _is_here(self, id_: Any) -> bool:
        try:
            return self.jobs.get(str(id_)).state != "gone"
        except Unknown:
            return False

    def _is_listed(self, picture: Any) -> bool:
        if picture.get("kind") == "job":
            return self._is_here(picture.get("id"))
        return self.photos.knows(
            str(picture.get("base")).removeprefix("photos/").removesuffix("/painted")
        )


def title(name: str) -> str:
    """What a style is called on the page."""
    known = {**_TITLES, OWN: "your painting"}
    return known.get(name, name.replace("_", " ").capitalize())


def _named(style: str) -> str:
    return "painting" if style == OWN else f"{SAMPLE}{style}"


def _shares(style: str, other: str, share: float) -> list[tuple[str, float]]:
    """The styles that take part, with their shares."""
    if not other or other == style:
        return [(style, 1.0)]
    pairs = [(style, round(1 - share, 4)), (other, round(share, 4))]
    return [(name, each) for name, each in pairs if each]


def _first(entry: dict[str, Any], history: list[Any]) -> list[Any]:
    return [entry, *history][:MOST]


def _stage(name: str, most: int) -> Any:
    return gr.HTML(
        value={},
        html_template=_STAGE,
        head=_SCRIPT,
        js_on_load="impasto.stage(element, trigger, props, watch, ['choose', 'keep'])",
        apply_default_css=False,
        elem_id=name,
        most=most,
    )


def _styles(name: str, label: str, most: int) -> Any:
    tiles = "".join(
        f'<label class="tile"><input type="radio" name="{name}" value="{style}">'
        f'<img src="paintings/{style}.jpg" alt="{html.escape(title(style))}">'
        f"<span>{html.escape(title(style))}</span></label>"
        for style in STYLES
    )
    return gr.HTML(
        value={},
        html_template=_TILES.format(label=label, tiles=tiles, name=name),
        head=_SCRIPT,
        js_on_load="impasto.styles(element, trigger, props, watch, ['choose'])",
        apply_default_css=False,
        elem_id=name,
        most=most,
    )


_TILES = """
<fieldset class="tiles" inert><legend>{label}</legend><div class="strip">{tiles}
<label class="tile own" hidden><input type="radio" name="{name}" value="own">
<img alt="Your painting"><span>Your painting</span></label>
<label class="tile add"><input type="file" accept="image/*,.heic,.heif,.avif,.tif,.tiff">
<b aria-hidden="true">+</b><span>Your own painting</span></label></div>
<p class="says" role="alert"></p></fieldset>
"""

_STAGE = """
<section class="stage is-empty" aria-label="Picture" inert>
<div class="frame">
<img class="picture" alt="" hidden>
<video class="film" controls playsinline muted hidden aria-label="The film of this picture"></video>
<div class="drop">
<p class="big">Begin with a photo</p>
<label class="button primary"><input class="choose" type="file"
 accept="image/*,.heic,.heif,.avif,.tif,.tiff"><span>Choose a photo</span></label>
<label class="button camera"><input class="choose" type="file" accept="image/*"
 capture="environment"><span>Take a photo</span></label>
<p class="hint">or drop one here</p>
</div>
<div class="busy" hidden><span></span></div>
</div>
<p class="says" role="alert"></p>
<div class="course" hidden><progress max="1" aria-label="Progress"></progress></div>
<p class="words" role="status"></p>
<ul class="notices" aria-label="Notices" hidden></ul>
<div class="actions">
<button type="button" class="button stop" hidden>Stop here</button>
<a class="button save-png" hidden download>Save PNG</a>
<a class="button save-jpg" hidden download>Save JPEG</a>
<button type="button" class="button keep" hidden>Keep</button>
<button type="button" class="button flip" hidden>See the picture</button>
<button type="button" class="button photo" aria-pressed="false" hidden>See the photo</button>
<label class="button another" hidden><input class="choose" type="file"
 accept="image/*,.heic,.heif,.avif,.tif,.tiff"><span>New photo</span></label>
</div>
</section>
"""

_CARDS = """
<p class="none">Nothing here yet. What you paint is listed here, in this browser only.</p>
<ul class="cards" aria-label="My pictures"></ul>
"""
