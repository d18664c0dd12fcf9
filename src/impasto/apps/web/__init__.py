"""A page like Prisma: choose a photo, tap a style, or have it painted properly.

Gradio makes the tabs and controls. Pictures never pass through it: they come and go by `routes`, so
that nothing is cached twice and no address is fetched for anybody.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from impasto.jobs.batcher import Batcher
from impasto.jobs.queue import Jobs
from impasto.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",  # it looks up a host otherwise
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def build(jobs: Jobs, batcher: Batcher, settings: ServeSettings) -> FastAPI:
    """The page as an ASGI app; what it paints, it asks of `jobs` and `batcher`.

    Gradio reads the environment when it is imported; this sets what keeps it from the network.
    """
    os.environ |= _QUIET
    from impasto.apps.web import page, routes
    from impasto.apps.web.photos import Photos

    async def built() -> FastAPI:
        photos = Photos(jobs.store.folder / "photos", settings)
        jobs.also_tidied.append(photos.tidy)
        app = routes.app(jobs, batcher, photos, settings)
        return page.mounted(app, jobs, photos, settings)

    return asyncio.run(built())  # where no event loop runs, Gradio makes some and leaves them open
