"""The commands that open a door for others: serve, web."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from impasto.apps.cli.commands import app
from impasto.apps.cli.console import say
from impasto.apps.cli.options import File, settings_of, several
from impasto.errors import ImpastoError
from impasto.settings import ServeSettings, WebSettings, WorkSettings, choose

if TYPE_CHECKING:  # they need extras, and `impasto --help` must not wait for them
    from impasto.apps.door import Door
    from impasto.jobs.workers import Runs

_Work = TypeVar("_Work", bound=WorkSettings)

TOKEN = "IMPASTO_TOKEN"  # the name of the variable

Networks = Annotated[
    tuple[str, ...], several(lambda text: text, metavar="NAME=FILE", name="--network")
]


@app.command
@settings_of(ServeSettings)
def serve(
    *,
    folder: File | None = None,
    network: Networks = (),
    token: str | None = None,
    cluster: str | None = None,
    **choices: Any,
) -> None:
    """Serve pictures and jobs over HTTP, for programs.

    Pictures in one pass are painted together as they come in; long paintings wait
    in a queue on disk, which no crash empties. /docs says what can be asked.
    SIGTERM and Ctrl-C end it: what runs is finished, or kept to go on at the next
    start.

    Args:
        folder: where jobs are kept. By default in the user's folder for data.
        network: a network of yours for one pass, under a name; any number of times. The network in
            the package, samples, is always there.
        token: what requests have to bring, as Authorization: Bearer TOKEN. Better give it in the
            environment, as IMPASTO_TOKEN, where other users of this machine do not see it. To
            listen on an address that other machines reach, there has to be one.
        cluster: the address of a Ray cluster whose machines do the work, or local.
    """
    with _needing("serve"):
        from impasto.apps.door import listen
        from impasto.apps.serve import build
    settings = choose(ServeSettings, None, choices)
    token = _token(settings, token)
    with opened("serve", settings, folder, network, cluster) as door:
        listen(build(door, settings, token), settings, door.drain, say)


@app.command
@settings_of(WebSettings)
def web(
    *,
    folder: File | None = None,
    token: str | None = None,
    cluster: str | None = None,
    **choices: Any,
) -> None:
    """Open a web page to paint on, for people: choose a photo, tap a style.

    Args:
        folder: where pictures are kept. By default in the user's folder for data.
        token: a password that browsers ask for. Better give it in the environment, as
            IMPASTO_TOKEN. To listen on an address that other machines reach, there has to be one.
        cluster: the address of a Ray cluster whose machines do the work, or local.
    """
    with _needing("web"):
        from impasto.apps.door import guarded, listen
        from impasto.apps.web import build

        if find_spec("gradio") is None:  # `build` imports it, after it has set its environment
            raise ModuleNotFoundError("no gradio", name="gradio")
    settings = choose(WebSettings, None, choices)
    token = _token(settings, token)
    with opened("web", settings, folder, (), cluster) as door:
        built = build(door.jobs, door.batcher, settings)
        listen(guarded(built, door, settings, token), settings, door.drain, say)


@contextmanager
def opened(
    name: str,
    settings: ServeSettings,
    folder: str | None,
    networks: tuple[str, ...],
    cluster: str | None,
) -> Iterator[Door]:
    """The jobs and batches of a door, whose workers end with the block."""
    from impasto.apps.door import Door
    from impasto.jobs.batcher import Batcher
    from impasto.jobs.queue import Jobs

    known = _named(networks)
    settings, staff = staffed(cluster, settings)
    jobs = Jobs(_folder(folder, name), settings, staff.painter, known)
    door = Door(jobs, Batcher(settings, staff.worker, list(known.values())))
    try:
        yield door
    finally:
        door.drain()
        door.close()


@dataclass(frozen=True)
class Staff:
    """How workers begin: those that optimise pictures, and those that paint in one pass."""

    painter: Callable[[], Runs]
    worker: Callable[[], Runs]


def staffed(cluster: str | None, settings: _Work, kinds: int = 2) -> tuple[_Work, Staff]:
    """Settings that say how many workers there are, and how they begin, here or on a cluster.

    kinds: 2 if both kinds work at once, 1 if only one of them does. On a cluster they share the
    cores of each machine.
    """
    from impasto.jobs.batcher import worker_count

    if cluster is None:
        from impasto.jobs.workers import Worker, machine_cores

        count, cores = worker_count(settings), machine_cores()
        own = replace(settings, workers=count)
        staff = Staff(
            lambda: Worker(max(1, cores // settings.painters)),
            lambda: Worker(max(1, cores // count)),
        )
        return own, staff
    from impasto.jobs.cluster import Cluster

    joined = Cluster(cluster)
    workers = settings.workers or joined.count
    painters = max(settings.painters, joined.count)
    each = max(1, -(-max(workers, painters) // joined.count)) * kinds
    own = replace(settings, workers=workers, painters=painters)
    return own, Staff(partial(joined.start, each), partial(joined.start, each))


def _named(networks: tuple[str, ...]) -> dict[str, str]:
    """The networks that are served, by name, each with its file."""
    from impasto.networks import files

    known = {"samples": "samples"}
    for text in networks:
        name, _, file = text.rpartition("=")
        name = name or Path(file).stem
        if name in known:
            raise ImpastoError(f"two networks are called {name}; name one, as in other={file}")
        _ = files.read(file).transformer  # a generator, or a damaged file, is found now
        known[name] = str(Path(file).resolve())
    return known


def _folder(folder: str | None, name: str) -> Path:
    from platformdirs import user_data_path

    return Path(folder) if folder else user_data_path("impasto", appauthor=False) / name


def _token(settings: ServeSettings, token: str | None) -> str | None:
    from impasto.apps.guard import check_host

    token = token or os.environ.get(TOKEN) or None
    check_host(settings.host, token)
    return token


@contextmanager
def _needing(extra: str) -> Iterator[None]:
    """Turn the lack of an extra's packages into a sentence that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("impasto"):
            raise
        raise ImpastoError(
            f"impasto {extra} needs the package {error.name}; install it with: "
            f"pip install 'impasto[{extra}]'"
        ) from None
