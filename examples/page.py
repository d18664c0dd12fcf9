"""Takes the picture of the page for the documents: python examples/page.py (needs Chromium)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from impasto import sample

TARGET = Path(__file__).parents[1] / "docs" / "serving" / "page.jpg"
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        command = [sys.executable, "-m", "impasto", "web", "--port", "0", "--folder", folder]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert server.stderr
        found = re.search(r"http://\S+", server.stderr.readline())
        assert found
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=FLAGS, timeout=60_000
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(60_000)
        page.goto(found[0])
        page.wait_for_selector("#stage .stage:not([inert])")
        page.set_input_files("#stage .choose >> nth=0", sample("scarlet_macaw"))
        page.locator("#styles .tile[data-photo]").nth(4).wait_for()
        page.check("#styles input[value=church_at_auvers]", force=True)
        page.locator("#stage .picture[alt*=Auvers]").wait_for()
        page.wait_for_timeout(1500)
        shot = Path(folder) / "page.png"
        page.screenshot(path=shot)
        browser.close()
        server.terminate()
        server.wait()
        Image.open(shot).convert("RGB").save(TARGET, quality=82)
        print(TARGET)
