"""The page in a real browser, at the width of a desk and of a phone. Needs Gradio, Playwright and a Chromium."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bagel import Bagel
from conftest import CHECKPOINT

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)
pytestmark = pytest.mark.slow

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, bagel: Bagel) -> Iterator[tuple[str, Path]]:
    """A page that is up: its address, and the folder of its pictures."""
    from bagel.app.ui.app import Place, serve

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    out = tmp_path_factory.mktemp("pictures")
    blocks = serve(str(CHECKPOINT), bagel.config, lambda report: bagel, Place(port=port, out=out), wait=False)
    yield f"http://127.0.0.1:{port}", out
    blocks.close(verbose=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(params=[1280, 390])
def page(request: pytest.FixtureRequest, browser: Any, desk: tuple[str, Path]) -> Iterator[Any]:
    """A fresh page; at the end nothing was asked of any other machine and no script failed."""
    context = browser.new_context(viewport={"width": request.param, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    strangers: list[str] = []
    failures: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((desk[0], "data:", "blob:")) else strangers.append(r.url))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(desk[0])
    page.wait_for_selector("#draw-prompt textarea")
    page.wait_for_selector("#model-state .box:has-text(' on cpu')")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()
    assert not strangers
    assert not failures


def turn_to(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def small(page: Any, job: str, updates: int = 5) -> None:
    """Asks for little."""
    panel = page.locator(f".tabitem:has(#{job}-status)")
    panel.locator(".knobs > button").click()
    panel.get_by_label("number input for Timesteps").fill(str(updates))
    page.keyboard.press("Tab")


def end(page: Any, tab: str, kind: str = "done") -> str:
    page.wait_for_selector(f"#{tab}-status .box.{kind}")
    return str(page.inner_text(f"#{tab}-status"))


def test_draw_then_drop_the_png_back(page: Any, desk: tuple[str, Path]) -> None:
    before = set(desk[1].glob("*.png"))
    small(page, "draw", 6)
    page.fill("#draw-prompt textarea", "a red circle")
    page.get_by_label("Seed", exact=True).first.fill("77")
    page.press("#draw-prompt textarea", "Enter")
    assert "seed 77" in end(page, "draw")
    (made,) = set(desk[1].glob("*.png")) - before
    page.fill("#draw-prompt textarea", "something else")
    page.get_by_label("Seed", exact=True).first.fill("")
    turn_to(page, "History")
    page.set_input_files("#history-drop input[type=file]", str(made))
    page.wait_for_selector("#history-table:has-text('a red circle')")
    page.click("#history-use")
    page.wait_for_function("document.querySelector('#draw-prompt textarea').value == 'a red circle'")
    assert page.get_by_label("Seed", exact=True).first.input_value() == "77"
    assert page.get_by_label("number input for Timesteps").first.input_value() == "6"


def test_cancel_frees_the_model(page: Any) -> None:
    small(page, "draw", 200)
    page.fill("#draw-prompt textarea", "a red circle")
    for side in ("Width", "Height"):
        page.get_by_label(side, exact=True).first.fill("512")
    page.click("#draw-go")
    page.wait_for_selector("#draw-status .bar")
    page.dispatch_event("#draw-cancel", "click")
    assert "free again" in end(page, "draw", "note")
    turn_to(page, "Understand")
    page.fill("#chat-prompt textarea", "What is it?")
    page.press("#chat-prompt textarea", "Enter")
    end(page, "chat")


def test_edit_several_then_converse(page: Any, tmp_path: Path) -> None:
    turn_to(page, "Edit")
    page.fill("#edit-prompt textarea", "make it blue")
    page.press("#edit-prompt textarea", "Enter")
    assert "no picture" in end(page, "edit", "error")
    names = [tmp_path / "a.png", tmp_path / "b.png"]
    for shade, name in enumerate(names):
        Image.new("RGB", (80, 64), (90 * shade, 40, 160)).save(name)
    page.set_input_files("#edit-pictures input[type=file]", [str(name) for name in names])
    page.wait_for_selector("#edit-pictures img >> nth=1")
    small(page, "edit")
    page.click("#edit-go")
    assert "seed" in end(page, "edit")
    page.wait_for_selector("#edit-slider img")
    page.click("#edit-to-talk")
    page.wait_for_selector("#talk-message img")
    page.locator("#talk-reply label").nth(1).click()
    small(page, "talk")
    page.fill("#talk-message textarea", "now make it night")
    page.press("#talk-message textarea", "Enter")
    assert "seed" in end(page, "talk")
    page.wait_for_selector("#talk-chat .bot img")
    page.locator("#talk-reply label").nth(0).click()
    page.fill("#talk-message textarea", "What do you see?")
    page.press("#talk-message textarea", "Enter")
    page.wait_for_selector("#talk-chat :text('What do you see?')")
    page.wait_for_selector("#talk-cancel", state="hidden")
    page.click("#talk-undo")
    page.wait_for_selector("#talk-chat :text('What do you see?')", state="detached")


def test_the_language_switches(page: Any) -> None:
    page.locator("#language label").nth(1).click()
    page.wait_for_selector("#draw-go:has-text('开始画')")
    page.fill("#draw-prompt textarea", " ")
    page.click("#draw-go")
    end(page, "draw", "error")
    turn_to(page, "对话")
    page.wait_for_selector("#talk-new:has-text('新对话')")


def test_a_chinese_browser_gets_chinese(browser: Any, desk: tuple[str, Path]) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(desk[0])
    page.wait_for_selector("#draw-go:has-text('开始画')", timeout=PATIENCE)
    context.close()
