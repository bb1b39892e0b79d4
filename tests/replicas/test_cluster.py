"""The application for a cluster behind Ray's own proxies, and the config file that names it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="replicas need Ray: pip install 'bagel-mot[ray]'")
httpx = pytest.importorskip("httpx")
yaml = pytest.importorskip("yaml")
serve = pytest.importorskip("ray.serve")

from bagel import InputError  # noqa: E402
from bagel.app.replicas import cluster, kept  # noqa: E402
from conftest import CHECKPOINT  # noqa: E402
from server.live import free_port  # noqa: E402

CONFIG = Path(__file__).parents[2] / "configs" / "ray-serve.yaml"


def test_the_config_file_fits():
    from ray.serve.schema import ServeDeploySchema

    config = yaml.safe_load(CONFIG.read_text())
    ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    module, name = application["import_path"].split(":")
    built = getattr(importlib.import_module(module), name)({**application["args"], "model": "mini"})
    assert built is not None
    assert [deployment["name"] for deployment in application["deployments"]] == ["Model", "Front"]
    assert config["http_options"]["request_timeout_s"] > application["args"]["timeout"] + 10


@pytest.mark.parametrize("name", ["wings", "port", "api_keys", "replicas"])
def test_arguments_that_are_none(name):
    with pytest.raises(InputError, match=name):
        cluster.application({name: 1})


def test_a_session_moves_only_with_its_replica():
    names = [f"replica{number}" for number in range(5)]

    def home(session, replicas):
        return max(replicas, key=lambda replica: kept.rank(session, replica))

    homes = {session: home(session, names) for session in map(str, range(500))}
    assert all(60 <= list(homes.values()).count(name) <= 140 for name in names)
    for session, replica in homes.items():
        moved = home(session, names[:-1])
        assert moved == replica or replica == names[-1]


@pytest.mark.slow
def test_behind_the_proxies(monkeypatch, bagel):
    monkeypatch.setenv("BAGEL_API_KEYS", "first")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    port = free_port()
    ray.init("local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"port": port})
        arguments = {"model": str(CHECKPOINT), "device": "cpu", "threads": 1, "name": "mini"}
        serve.run(cluster.application(arguments), name="bagel", route_prefix="/")
        body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            assert http.get("/v1/models").status_code == 401
            assert http.get("/health").json()["replicas"] == 1
            http.headers["Authorization"] = "Bearer first"
            wanted = bagel.chat("hello", max_tokens=9).text
            answer = http.post("/v1/chat/completions", json=body)
            assert answer.json()["choices"][0]["message"]["content"] == wanted
            datas = http.post("/v1/chat/completions", json={**body, "stream": True}).text.split("\n\n")
            chunks = [json.loads(data.removeprefix("data: ")) for data in datas[:-2]]
            assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == wanted
            assert datas[-2] == "data: [DONE]"
            assert "bagel_tokens_written_total{replica=" in http.get("/metrics").text
    finally:
        serve.shutdown()
        ray.shutdown()
