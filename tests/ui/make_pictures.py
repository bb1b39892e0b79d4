"""Makes the pictures of the page and of the workflow for the documents, the page's in a real browser:

    PYTHONPATH=src:tests python -m ui.make_pictures models/mini [FOLDER]

`ui-drawing.png`, `ui-history.png` and `ui-phone.png` go to `docs`, and the example workflow of the ComfyUI nodes with
its results, drawn from its file, to `integrations/comfyui/workflow.png`; all go to FOLDER where one is named. Each is
below 300 kB.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from bagel import Bagel
from bagel.app.ui.app import Place, serve
from comfyui.draw_workflow import workflow_picture
from comfyui.fake import PACK

MOST_BYTES = 300_000
DOCS = Path(__file__).parent.parent.parent / "docs"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PATIENCE = 120_000


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


def opened(browser: Any, address: str, width: int, height: int) -> Any:
    page = browser.new_context(viewport={"width": width, "height": height}, locale="en-US").new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.wait_for_selector("#model-state .box:has-text(' on ')")
    return page


def shoot(page: Any, path: Path, wait: int = 700) -> None:
    """A screenshot in at most 256 colours where that is needed to keep it small."""
    page.mouse.move(0, 0)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(wait)
    page.screenshot(path=str(path))
    if path.stat().st_size > MOST_BYTES:
        with Image.open(path) as image:
            fewer = image.convert("RGB").quantize(256)
        fewer.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path} has {path.stat().st_size:,} bytes; at most {MOST_BYTES:,} are allowed.")


def example(page: Any, tab: str, number: int) -> None:
    page.locator(f".tabitem:has(#{tab}-status) .examples button").nth(number).click()
    page.wait_for_function(f"document.querySelector('#{tab}-prompt textarea').value != ''")


def drawing(page: Any, path: Path) -> None:
    """Three pictures on the way, slowly enough that more than noise is seen."""
    panel = page.locator(".tabitem:has(#draw-status)")
    example(page, "draw", 0)
    panel.get_by_label("number input for Pictures at once").fill("3")
    panel.locator(".knobs > button").click()
    panel.get_by_label("number input for Timesteps").fill("200")
    page.keyboard.press("Tab")
    panel.locator(".knobs > button").click()
    page.click("#draw-go")
    page.wait_for_selector("#draw-previews img >> nth=2")
    page.wait_for_function("parseFloat(document.querySelector('#draw-status .bar i')?.style.width) > 55", polling=50)
    shoot(page, path, 0)
    if page.is_visible("#draw-cancel"):
        page.dispatch_event("#draw-cancel", "click")
    page.wait_for_selector("#draw-status .box.note, #draw-status .box.done")


def history(page: Any, path: Path) -> None:
    """A few drawings and an edit, and what the edit was made from."""
    for number in range(3):
        example(page, "draw", number)
        page.click("#draw-go")
        page.wait_for_selector("#draw-cancel", state="visible")
        page.wait_for_selector("#draw-status .box.done")
    page.get_by_role("tab", name="Edit").click()
    example(page, "edit", 0)
    page.wait_for_selector("#edit-pictures img")
    page.click("#edit-go")
    page.wait_for_selector("#edit-status .box.done")
    page.get_by_role("tab", name="History").click()
    page.locator("#history-shown .thumbnail-lg").first.click()
    page.wait_for_selector("#history-from img")
    shoot(page, path)


def phone(page: Any, path: Path) -> None:
    example(page, "draw", 0)
    page.click("#draw-go")
    page.wait_for_selector("#draw-status .box.done")
    shoot(page, path)


def make(bagel: Bagel, name: str, folder: Path) -> list[Path]:
    """-> the files."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as out, sync_playwright() as play:
        place = Place(port=port, out=Path(out))
        served = serve(name, bagel.config, lambda report: bagel, place, wait=False)
        browser = play.chromium.launch(executable_path=chromium(), headless=True, args=FLAGS)
        try:
            for shot, width, height in ((drawing, 1280, 900), (history, 1280, 900), (phone, 390, 844)):
                page = opened(browser, f"http://127.0.0.1:{port}", width, height)
                made.append(folder / f"ui-{shot.__name__}.png")
                shot(page, made[-1])
                page.context.close()
        finally:
            browser.close()
            served.close()
    return made


def main() -> None:
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    model, named = sys.argv[1], Path(sys.argv[2]) if len(sys.argv) == 3 else None
    paths = make(Bagel.load(model), model, named or DOCS)
    paths.append((named or PACK) / "workflow.png")
    workflow_picture(model, paths[-1])
    for path in paths:
        print(path, f"{path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
