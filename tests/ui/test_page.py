"""The page in a real browser, at the width of a desk and of a phone. Needs Gradio, Playwright and a Chromium."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bagel import Bagel
from bagel.infer.scheduler import Scheduler
from conftest import CHECKPOINT

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)
pytestmark = pytest.mark.slow

from bagel.app.ui.app import Place, serve  # noqa: E402
from bagel.app.ui.page import Page  # noqa: E402

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
sync_api.expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, bagel: Bagel) -> Iterator[tuple[Page, int]]:
    """A page that is up, and its port."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    out = tmp_path_factory.mktemp("pictures")
    page = serve(str(CHECKPOINT), bagel.config, lambda report: bagel, Place(port=port, out=out), wait=False)
    yield page, port
    page.close()


@pytest.fixture(scope="module")
def desk(opened: tuple[Page, int]) -> tuple[str, Path]:
    """The page's address, and the folder of its pictures."""
    return f"http://127.0.0.1:{opened[1]}", opened[0].history.folder


@pytest.fixture
def scheduler(opened: tuple[Page, int]) -> Scheduler:
    worker = opened[0].host.worker
    assert worker is not None
    return worker.scheduler


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


def seed_box(page: Any, tab: str) -> Any:
    return page.locator(f".tabitem:has(#{tab}-status)").get_by_label("Seed", exact=True)


def picture(path: Path, colour: tuple[int, int, int]) -> Path:
    Image.new("RGB", (80, 64), colour).save(path)
    return path


def last_made(folder: Path, before: set[Path]) -> Path:
    (made,) = set(folder.glob("*.png")) - before
    return made


def drop(page: Any, path: Path, shown: str) -> None:
    """A PNG into the history, and its settings into use."""
    turn_to(page, "History")
    page.set_input_files("#history-drop input[type=file]", str(path))
    page.wait_for_selector(f"#history-table:has-text('{shown}')")
    page.click("#history-use")


def turn_to(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def small(page: Any, job: str, updates: int = 5) -> None:
    """Asks for little."""
    panel = page.locator(f".tabitem:has(#{job}-status)")
    panel.locator(".knobs > button").click()
    slider = panel.get_by_label("range slider for Timesteps")
    for _ in range(50):  # what is typed before the page has had its first answer, the presets, is set back by it
        panel.get_by_label("number input for Timesteps").fill(str(updates))
        page.keyboard.press("Tab")
        page.wait_for_timeout(200)
        if slider.input_value() == str(updates):
            return
    raise AssertionError("the number of timesteps does not stay")


def long(page: Any, side: int) -> None:
    """Asks for a drawing that takes its time."""
    small(page, "draw", 200)
    page.fill("#draw-prompt textarea", "a red circle")
    for name in ("Width", "Height"):
        page.get_by_label(name, exact=True).first.fill(str(side))
    page.keyboard.press("Tab")


def end(page: Any, tab: str, kind: str = "done") -> str:
    page.wait_for_selector(f"#{tab}-status .box.{kind}")
    return str(page.inner_text(f"#{tab}-status"))


def test_draw_then_drop_the_png_back(page: Any, desk: tuple[str, Path]) -> None:
    before = set(desk[1].glob("*.png"))
    small(page, "draw", 6)
    page.fill("#draw-prompt textarea", "a red circle")
    seed_box(page, "draw").fill("77")
    page.press("#draw-prompt textarea", "Enter")
    assert "seed 77" in end(page, "draw")
    made = last_made(desk[1], before)
    page.fill("#draw-prompt textarea", "something else")
    seed_box(page, "draw").fill("")
    drop(page, made, "a red circle")
    sync_api.expect(page.locator("#draw-prompt textarea")).to_have_value("a red circle")
    sync_api.expect(seed_box(page, "draw")).to_have_value("77")
    sync_api.expect(page.get_by_label("number input for Timesteps").first).to_have_value("6")


def test_examples_several_at_once_and_the_seed_again(page: Any, desk: tuple[str, Path]) -> None:
    before = set(desk[1].glob("*.png"))
    small(page, "draw")
    panel = page.locator(".tabitem:has(#draw-status)")
    panel.locator(".examples button").first.click()
    page.wait_for_function("document.querySelector('#draw-prompt textarea').value != ''")
    panel.get_by_label("number input for Pictures at once").fill("3")
    page.keyboard.press("Tab")
    page.click("#draw-go")
    told = end(page, "draw")
    page.wait_for_selector("#draw-result img >> nth=2")
    assert len(set(desk[1].glob("*.png")) - before) == told.count("seed") == 3
    panel.get_by_role("button", name="Use last seed").click()
    sync_api.expect(seed_box(page, "draw")).not_to_have_value("")
    assert f"seed {seed_box(page, 'draw').input_value()}," in f"{told},"
    turn_to(page, "Understand")
    page.locator(".tabitem:has(#chat-status) .examples button").first.click()
    page.wait_for_selector("#chat-pictures img")
    page.press("#chat-prompt textarea", "Enter")
    end(page, "chat")
    assert page.input_value("#chat-answer textarea")


def test_previews_and_the_time_left(page: Any) -> None:
    long(page, 256)
    page.click("#draw-go")
    page.wait_for_selector("#draw-previews img")
    page.wait_for_selector("#draw-status .box:has-text('of 199'):has-text('left') .bar")
    page.dispatch_event("#draw-cancel", "click")
    end(page, "draw", "note")
    page.wait_for_selector("#draw-previews img", state="detached")


def test_cancel_frees_the_model(page: Any) -> None:
    long(page, 512)
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
    names = [picture(tmp_path / f"{shade}.png", (90 * shade, 40, 160)) for shade in (0, 1)]
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


def test_an_edit_comes_back_with_its_pictures(page: Any, desk: tuple[str, Path], tmp_path: Path) -> None:
    before = set(desk[1].glob("*.png"))
    turn_to(page, "Edit")
    names = [picture(tmp_path / f"{shade}.png", (shade, 40, 160)) for shade in (90, 180)]
    page.set_input_files("#edit-pictures input[type=file]", [str(name) for name in names])
    page.wait_for_selector("#edit-pictures img >> nth=1")
    small(page, "edit")
    page.fill("#edit-prompt textarea", "make it blue")
    page.press("#edit-prompt textarea", "Enter")
    end(page, "edit")
    made = last_made(desk[1], before)
    page.reload()
    page.wait_for_selector("#draw-prompt textarea")
    drop(page, made, "make it blue")
    page.wait_for_selector("#edit-pictures img >> nth=1")
    page.press("#edit-prompt textarea", "Enter")
    end(page, "edit")
    again = last_made(desk[1], {*before, made})
    assert Image.open(again).tobytes() == Image.open(made).tobytes()
    for kept in (desk[1] / "inputs").glob("*.png"):
        kept.unlink()
    drop(page, made, "make it blue")
    assert "once more" in end(page, "edit", "note")


def test_a_conversation_comes_back_as_it_was(page: Any, desk: tuple[str, Path], tmp_path: Path) -> None:
    before = set(desk[1].glob("*.png"))
    turn_to(page, "Converse")
    small(page, "talk")
    page.locator("#talk-message input[type=file]").set_input_files(str(picture(tmp_path / "a.png", (9, 99, 9))))
    page.wait_for_selector("#talk-message img")
    page.locator("#talk-reply label").nth(1).click()
    for said in ("make it night", "now make it day"):
        page.fill("#talk-message textarea", said)
        page.press("#talk-message textarea", "Enter")
        page.wait_for_selector(f"#talk-chat :text('{said}')")
        page.wait_for_selector("#talk-cancel", state="hidden")
        end(page, "talk")
    newest = max(set(desk[1].glob("*.png")) - before)
    page.reload()
    page.wait_for_selector("#draw-prompt textarea")
    drop(page, newest, "now make it day")
    page.wait_for_selector("#talk-chat :text('make it night')")
    page.wait_for_selector("#talk-shown img >> nth=1")
    page.wait_for_function("document.querySelector('#talk-message textarea').value == 'now make it day'")
    known = set(desk[1].glob("*.png"))
    page.press("#talk-message textarea", "Enter")
    end(page, "talk")
    assert Image.open(last_made(desk[1], known)).tobytes() == Image.open(newest).tobytes()


def test_the_language_switches(page: Any) -> None:
    page.locator("#language label").nth(1).click()
    page.wait_for_selector("#draw-go:has-text('开始画')")
    page.fill("#draw-prompt textarea", " ")
    page.click("#draw-go")
    assert "还没有写内容" in end(page, "draw", "error")
    page.fill("#draw-prompt textarea", "x")
    page.locator(".tabitem:has(#draw-status)").get_by_label("宽", exact=True).fill("33")
    page.click("#draw-go")
    page.wait_for_selector("#draw-status .box.error:has-text('应为 16 的倍数')")
    turn_to(page, "对话")
    page.wait_for_selector("#talk-new:has-text('新对话')")


def test_only_pictures_of_the_folder_are_served(browser: Any, desk: tuple[str, Path]) -> None:
    secret, shown = desk[1] / "keys.txt", desk[1] / "mine.png"
    secret.write_text("secret")
    Image.new("RGB", (8, 8)).save(shown)
    context = browser.new_context()
    for path, status in ((shown, 200), (secret, 404), (desk[1] / "inputs" / ".." / "keys.txt", 404)):
        for route in ("file=", "file/"):
            found = context.request.get(f"{desk[0]}/gradio_api/{route}{path}")
            assert found.status == status or (route == "file/" and found.status != 200), (path, route)
    context.close()
    shown.unlink()


def test_two_visitors_at_once(browser: Any, desk: tuple[str, Path], scheduler: Scheduler) -> None:
    """Both draw in the same passes; one cancels, and the other's goes on."""
    pages = []
    for _ in range(2):
        page = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US").new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(desk[0])
        page.wait_for_selector("#model-state .box:has-text(' on cpu')")
        long(page, 256)
        pages.append(page)
    metrics = scheduler.metrics
    passes, occupancy = sum(metrics.passes.values()), metrics.occupancy
    for page in pages:
        page.click("#draw-go")
    for page in pages:
        page.wait_for_selector("#draw-status .bar")
        assert "Waiting" not in page.inner_text("#draw-status")
    passes, occupancy = sum(metrics.passes.values()) - passes, metrics.occupancy - occupancy
    assert occupancy > 1.2 * passes
    pages[0].dispatch_event("#draw-cancel", "click")
    assert "free again" in end(pages[0], "draw", "note")
    assert "seed" in end(pages[1], "draw")
    for page in pages:
        page.context.close()


def test_who_closes_the_tab_frees_the_model(browser: Any, desk: tuple[str, Path], scheduler: Scheduler) -> None:
    page = browser.new_context(locale="en-US").new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(desk[0])
    page.wait_for_selector("#model-state .box:has-text(' on cpu')")
    long(page, 512)
    page.click("#draw-go")
    page.wait_for_selector("#draw-status .bar")
    cancelled = scheduler.metrics.ended["cancelled"]
    page.close()
    end = time.monotonic() + 20
    while scheduler.busy and time.monotonic() < end:
        time.sleep(0.05)
    assert scheduler.metrics.ended["cancelled"] == cancelled + 1


def test_a_chinese_browser_gets_chinese(browser: Any, desk: tuple[str, Path]) -> None:
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(desk[0])
    page.wait_for_selector("#draw-go:has-text('开始画')", timeout=PATIENCE)
    context.close()


def test_examples_that_think_say_so(page: Any) -> None:
    panel = page.locator(".tabitem:has(#draw-status)")
    sync_api.expect(page.locator("#draw-to-edit")).to_be_hidden()
    panel.locator(".examples button").nth(2).click()
    sync_api.expect(panel.get_by_label("Think first")).to_be_checked()
    panel.locator(".examples button").first.click()
    sync_api.expect(panel.get_by_label("Think first")).not_to_be_checked()


def test_little_pictures_are_shown_pixel_by_pixel(page: Any) -> None:
    small(page, "draw")
    page.fill("#draw-prompt textarea", "a red circle")
    page.press("#draw-prompt textarea", "Enter")
    end(page, "draw")
    shown = page.locator("#draw-result img").first
    assert shown.evaluate("it => getComputedStyle(it).imageRendering") == "pixelated"
    assert shown.bounding_box()["width"] <= 400
    sync_api.expect(page.locator("#draw-to-edit")).to_be_visible()
