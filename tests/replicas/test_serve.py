"""`bagel serve --replicas 2` through Ray Serve: one server to clients, also while a replica is killed."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("ray", reason="replicas need Ray: pip install 'bagel-mot[ray]'")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")

from replicas.processes import Command  # noqa: E402
from server.live import assert_same, free_port, opened, wait  # noqa: E402

pytestmark = pytest.mark.slow
KEY = {"Authorization": "Bearer first"}
CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"
LONG = {"prompt": "a cube", "size": "384x384", "num_timesteps": 100, "seed": 1}
REPLICA = "ServeReplica:bagel:Model"


def said(text="hello", **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 3, **fields}


class Served:
    def __init__(self, command, url):
        self.command, self.url = command, url
        self.http = httpx.Client(base_url=url, headers=KEY, timeout=120)

    def ready(self):
        """Replicas that answer."""
        try:
            return self.http.get("/health", timeout=10).json().get("replicas", 0)
        except httpx.HTTPError:
            return 0

    def metric(self, name, replica=""):
        lines = [line for line in self.http.get("/metrics").text.splitlines() if replica in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def sessions(self, count=24):
        """A session of each replica, by the replica's name."""
        found = {}
        for number in range(count):
            session = {"X-Session-Id": f"session {number}"}
            found[self.http.post(CHAT, json=said(), headers=session).headers["x-replica"]] = session
        assert len(found) == 2
        return found

    def process_of(self, replica):
        (found,) = [process for process in self.command.children(REPLICA) if says(process, replica)]
        return found


def says(process, replica):
    """The name of a replica is in those of the files it writes to."""
    return any(replica in file.path for file in process.open_files())


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    port = free_port()
    words = ["serve", "--replicas", "2", "--port", str(port), "--threads", "1", "--active", "4", "--queue", "4"]
    command = Command(
        tmp_path_factory.mktemp("served") / "log", *words, "--max-body", "1", "--name", "mini", BAGEL_API_KEYS="first,x"
    )
    server = Served(command, f"http://127.0.0.1:{port}")
    try:
        wait(lambda: command.process.poll() is not None or server.ready() == 2, 120)
        assert command.process.poll() is None, command.log.read_text()
        yield server
    finally:
        command.stop()


def test_answers_are_those_of_single_runs(served, bagel, pictures):
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="first", max_retries=0, timeout=60)

    def chat(number):
        chunks = client.chat.completions.create(model="mini", **said(f"question {number}", max_tokens=9), stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    def draw(number):
        found = client.images.generate(
            model="mini", prompt="a cube", size="48x32", extra_body={"num_timesteps": 5, "seed": number}
        )
        return opened(found.data[0].b64_json)

    with ThreadPoolExecutor(6) as pool:
        texts, images = pool.map(chat, range(12)), pool.map(draw, range(6))
        assert list(texts) == [bagel.chat(f"question {number}", max_tokens=9).text for number in range(12)]
        for number, image in enumerate(images):
            assert_same(image, bagel.draw("a cube", width=48, height=32, num_timesteps=5, seed=number).image)


def test_sessions_stay_and_others_spread(served):
    for replica, session in served.sessions().items():
        seen = {served.http.post(CHAT, json=said(), headers=session).headers["x-replica"] for _ in range(8)}
        assert seen == {replica}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: served.http.post(CHAT, json=said(max_tokens=20)), range(24)))
    assert len({answer.headers["x-replica"] for answer in answers}) == 2


def test_keys_and_limits(served):
    assert httpx.get(f"{served.url}/v1/models").status_code == 401
    assert served.http.get("/v1/models").json()["data"][0]["id"] == "mini"
    assert served.http.post(CHAT, content=b"x" * (1 << 20 | 1)).status_code == 413
    assert served.http.post(CHAT, content=b"{", headers={"content-type": "application/json"}).status_code == 400
    answer = served.http.post(CHAT, json=said(), headers={"X-Request-Id": "mine-1"})
    assert answer.headers.get_list("x-request-id") == ["mine-1"]


def test_a_full_replica_says_when_to_come_back(served):
    replica, session = served.sessions().popitem()
    with ThreadPoolExecutor(1) as pool:
        full = pool.submit(lambda: served.http.post(DRAW, json={**LONG, "n": 8}, headers=session))
        wait(lambda: served.metric("bagel_jobs_active", replica) + served.metric("bagel_jobs_waiting", replica) == 8)
        refused = served.http.post(CHAT, json=said(), headers=session)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        other = served.http.post(CHAT, json=said())
        assert (other.status_code, other.headers["x-replica"] != replica) == (200, True)
        assert full.result().status_code == 200


def test_metrics_count_once(served):
    names = ["bagel_requests_total", "bagel_tokens_written_total"]
    text = served.http.get("/metrics").text
    assert len({part.split('"')[0] for part in text.split('replica="')[1:]}) == 2
    before = [served.metric(names[0], CHAT), served.metric(names[1])]
    served.http.post(CHAT, json=said())
    wait(lambda: [served.metric(names[0], CHAT), served.metric(names[1])] == [before[0] + 1, before[1] + 3])


def test_a_client_that_leaves_frees_its_job(served):
    cancelled = served.metric("bagel_jobs_total", 'kind="cancelled"')
    with pytest.raises(httpx.ReadTimeout):
        served.http.post(DRAW, json=LONG, timeout=0.3)
    wait(lambda: served.metric("bagel_jobs_total", 'kind="cancelled"') == cancelled + 1, 3)
    assert served.metric("bagel_jobs_active") == 0


def test_a_killed_replica_loses_nothing(served, bagel):
    """An answer that has not begun comes from the other replica; a stream ends with an error to try again."""
    replica, session = served.sessions().popitem()
    victim, begun, got = served.process_of(replica), threading.Event(), []

    def streamed():
        body = {**LONG, "stream": True, "partial_images": 3}
        with served.http.stream("POST", DRAW, json=body, headers=session) as response:
            for line in response.iter_lines():
                got.append(line)
                begun.set()
        return response.status_code

    with ThreadPoolExecutor(2) as pool:
        stream = pool.submit(streamed)
        whole = pool.submit(lambda: served.http.post(DRAW, json=LONG, headers=session))
        assert begun.wait(60)
        os.kill(victim.pid, signal.SIGKILL)
        assert stream.result(30) == 200
        error = json.loads([line for line in got if line][-1].removeprefix("data: "))["error"]
        assert (error["type"], error["code"]) == ("server_error", "replica_lost")
        answer = whole.result(60)
    assert (answer.status_code, answer.headers["x-replica"] != replica) == (200, True)
    fields = {"height": 384, "width": 384, "num_timesteps": 100, "seed": 1}
    assert_same(opened(answer.json()["data"][0]["b64_json"]), bagel.draw("a cube", **fields).image)
    assert served.http.post(CHAT, json=said(), headers=session).headers["x-replica"] != replica
    wait(lambda: served.ready() == 2, 90)
    assert replica not in served.sessions()


def test_all_replicas_killed_is_said_in_the_same_shape(served, bagel):
    wait(lambda: served.ready() == 2, 90)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(lambda: served.http.post(DRAW, json=LONG)) for _ in range(6)]
        wait(lambda: served.metric("bagel_jobs_active") == 6)
        for process in served.command.children(REPLICA):
            os.kill(process.pid, signal.SIGKILL)
        answers = [call.result(120) for call in calls]
    wanted = bagel.draw("a cube", height=384, width=384, num_timesteps=100, seed=1).image
    for answer in answers:
        if answer.status_code == 200:
            assert_same(opened(answer.json()["data"][0]["b64_json"]), wanted)
        else:
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] in ("replica_lost", "no_replica")
            assert int(answer.headers["retry-after"]) >= 1
    wait(lambda: served.ready() == 2, 90)
    assert served.http.post(CHAT, json=said()).status_code == 200


def test_stopping_finishes_what_runs_and_gives_back_what_waits(served, bagel):
    """The last test: the server is gone after it."""
    replica, session = served.sessions().popitem()
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(lambda: served.http.post(DRAW, json=LONG, headers=session)) for _ in range(6)]
        wait(lambda: served.metric("bagel_jobs_active", replica) == 4 and served.metric("bagel_jobs_waiting") == 2)
        began = time.monotonic()
        code, _ = served.command.stop()
        answers = [call.result(10) for call in calls]
    assert code == signal.SIGTERM, "the signal is handed on when all is done"
    assert time.monotonic() - began < 45
    wanted = bagel.draw("a cube", height=384, width=384, num_timesteps=100, seed=1).image
    done = [answer for answer in answers if answer.status_code == 200]
    back = [answer for answer in answers if answer.status_code == 503]
    assert (len(done), len(back)) == (4, 2)
    assert {(answer.headers["retry-after"], answer.json()["error"]["code"]) for answer in back} == {
        ("5", "shutting_down")
    }
    for answer in done:
        content = answer.json()["data"][0]["b64_json"]
        assert base64.b64decode(content)
        assert_same(opened(content), wanted)
    lines = [json.loads(line) for line in served.command.log.read_text().splitlines() if line.startswith("{")]
    counted = [line for line in lines if line.get("path") == DRAW and line["status"] == 200]
    assert all("replica" in line for line in counted)
    assert sum(line.get("pictures", 0) for line in counted[-4:]) == 4
    assert "first" not in served.command.log.read_text(), "keys are not logged"
