"""Full queues, clients that leave, time-outs, stopping, metrics, logs."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time

import httpx
import openai
import pytest

from bagel.infer.demand import demand_of
from bagel.options import ImageOptions, settle
from conftest import CHECKPOINT
from server.live import free_port, running, wait

CHAT = "/v1/chat/completions"
LONG = {"prompt": "a cube", "size": "64x64", "num_timesteps": 240, "seed": 1}


def said(text="hello", **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 3, **fields}


def in_background(call):
    found = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    return thread, found


def test_a_full_queue_says_when_to_come_back(served, bagel):
    with running(served, active=1, queue=1) as live:
        with live.held():
            calls = [in_background(lambda: live.post("/v1/images/generations", json=LONG)) for _ in range(2)]
            wait(lambda: live.worker.open == 2)
            response = live.post(CHAT, json=said())
            assert response.status_code == 429
            assert response.json()["error"]["code"] == "queue_full"
            assert 1 <= int(response.headers["retry-after"]) <= 60
            with pytest.raises(openai.RateLimitError):
                live.client().chat.completions.create(model="mini", **said())
            assert live.metric("bagel_jobs_waiting") == 1
        for thread, found in calls:
            thread.join(60)
            assert found[0].status_code == 200
        assert live.client().chat.completions.create(model="mini", **said()).choices


def test_on_a_small_card_requests_wait_for_room(served, monkeypatch):
    """Only one that would not fit alone is refused."""
    room = served.runtime.room
    asked = settle(ImageOptions(height=64, width=64, num_timesteps=240), "draw", served.config.presets)
    one = demand_of(served.runtime.checkpoint, ["a cube"], asked)
    monkeypatch.setattr(room, "free", lambda: room._bytes([one]))
    with running(served) as live:
        with live.held():
            calls = [in_background(lambda: live.post("/v1/images/generations", json=LONG)) for _ in range(3)]
            wait(lambda: live.worker.open == 3)
            wait(lambda: len(live.worker.scheduler.active) == 1)
        large = live.post("/v1/images/generations", json={**LONG, "size": "512x512", "num_timesteps": 2})
        assert large.status_code == 503
        assert "does not fit into memory" in large.json()["error"]["message"]
        for thread, found in calls:
            thread.join(60)
            assert found[0].status_code == 200
        assert live.worker.scheduler.metrics.ended["failed"] == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_job(live, stream):
    cancelled = live.worker.scheduler.metrics.ended["cancelled"]
    body = {**LONG, "stream": stream, "partial_images": 3}
    url = f"{live.url}/v1/images/generations"
    if stream:
        with httpx.stream("POST", url, json=body, timeout=10) as response:
            next(response.iter_lines())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, timeout=0.3)
    live.wait_idle(2)
    assert live.worker.scheduler.metrics.ended["cancelled"] == cancelled + 1
    assert not live.worker._handles


def test_nobody_fills_the_whole_queue(served):
    with running(served, active=1, queue=4, keys=("one", "two")) as live:

        def ask(key):
            return live.post("/v1/images/generations", json=LONG, headers={"authorization": f"Bearer {key}"})

        with live.held():
            calls = [in_background(lambda: ask("one")) for _ in range(4)]
            wait(lambda: live.worker.open == 4)
            assert ask("one").status_code == 429
            calls.append(in_background(lambda: ask("two")))
            wait(lambda: live.worker.open == 5)
            assert ask("two").status_code == 429, "five are all"
        for thread, _ in calls:
            thread.join(60)
        assert [found[0].status_code for _, found in calls] == [200] * 5
        assert not live.worker._open_of


def test_one_who_waits_and_leaves_never_runs(served):
    with running(served, active=1) as live:
        with live.held():
            thread, found = in_background(lambda: live.post("/v1/images/generations", json=LONG))
            wait(lambda: live.worker.scheduler.active)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(live.url + CHAT, json=said(max_tokens=400), timeout=0.2)
        wait(lambda: live.worker.open <= 1)
        thread.join(60)
        assert found[0].status_code == 200
        assert "write" not in live.worker.scheduler.metrics.passes


def test_a_request_that_takes_too_long(served):
    with running(served, timeout=0.2) as live:
        response = live.post("/v1/images/generations", json=LONG)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "timeout")
        live.wait_idle()
        lines = live.post("/v1/images/generations", json={**LONG, "stream": True}).text.split("\n\n")
        assert json.loads(lines[-2].removeprefix("data: "))["error"]["code"] == "timeout"


def test_stopping_finishes_what_runs_and_gives_back_what_waits(served, bagel):
    with running(served, active=1) as live:
        with live.held():
            first, found = in_background(lambda: live.post(CHAT, json=said(max_tokens=1500)))
            wait(lambda: live.worker.scheduler.active)
            second, back = in_background(lambda: live.post(CHAT, json=said()))
            wait(lambda: live.worker.open == 2)
            live.server.handle_exit(15, None)
        second.join(20)
        assert (back[0].status_code, back[0].headers["retry-after"]) == (503, "5")
        first.join(30)
        assert found[0].json()["choices"][0]["message"]["content"] == bagel.chat("hello", max_tokens=1500).text
        live.thread.join(20)
        assert not live.thread.is_alive()


def test_stopping_does_not_wait_for_ever(served):
    with running(served, grace=0.3) as live:
        call, found = in_background(lambda: live.post("/v1/images/generations", json={**LONG, "n": 8}))
        wait(lambda: live.worker.scheduler.active)
        began = time.monotonic()
        live.server.handle_exit(15, None)
        call.join(20)
        assert found[0].status_code == 503
        live.thread.join(20)
        assert time.monotonic() - began < 10


def test_request_ids_and_the_log(live, caplog):
    logging.getLogger("bagel.serve").propagate = True
    with caplog.at_level(logging.INFO, "bagel.serve"):
        response = live.post(CHAT, json=said(), headers={"x-request-id": "mine-1"})
        assert response.headers["x-request-id"] == "mine-1"
        other = live.post(CHAT, json=said(), headers={"x-request-id": "bad id!" * 20}).headers["x-request-id"]
        assert len(other) == 32
        wait(lambda: len(caplog.records) >= 2)
    line = json.loads(caplog.records[0].getMessage())
    assert (line["request_id"], line["status"], line["tokens"]) == ("mine-1", 200, 3)
    assert "hello" not in caplog.text, "what people write is nobody's business"


def test_metrics_count(live):
    names = [
        "bagel_tokens_written_total",
        "bagel_pictures_drawn_total",
        "bagel_passes_total",
        "bagel_pass_seconds_total",
    ]
    before = [live.metric(name) for name in names]
    live.post(CHAT, json=said())
    live.post("/v1/images/generations", json={**LONG, "num_timesteps": 3})
    after = [live.metric(name) for name in names]
    assert [b - a for a, b in zip(before[:2], after[:2], strict=True)] == [3, 1]
    assert all(b > a for a, b in zip(before, after, strict=True))
    assert live.metric("bagel_memory_bytes") > 1e7
    assert live.metric("bagel_cpu_seconds_total") > 0
    assert live.metric("bagel_jobs_active") == 0


def test_an_error_inside_is_not_told(live, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret /home/path")

    monkeypatch.setattr("bagel.app.server.chat._choice", broken)
    response = live.post(CHAT, json=said())
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in response.text


def test_the_command_serves_and_stops():
    port = free_port()
    command = [sys.executable, "-m", "bagel.app.cli", "serve", "-m", str(CHECKPOINT), "--port", str(port)]
    process = subprocess.Popen([*command, "--device", "cpu", "--threads", "1"], stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait(lambda: process.poll() is not None or is_up(url), 40)
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == CHECKPOINT.name
        assert httpx.post(url + CHAT, json=said(), timeout=30).status_code == 200
    finally:
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line.get("path") == CHAT] == [200]
    assert "Traceback" not in log


def is_up(url):
    try:
        return httpx.get(f"{url}/health").status_code == 200
    except httpx.HTTPError:
        return False
