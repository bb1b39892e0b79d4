"""The container files, as far as they can be held against the rest of the repository without Docker."""

from __future__ import annotations

import fnmatch
import importlib.util
import inspect
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bagel.app import cli, open_cli
from bagel.app.serve_flags import ServeFlags
from bagel.app.server.routes import router
from bagel.infer.pipeline import find_model

ROOT = Path(__file__).parent.parent
PORTS = {"serve": ServeFlags().port, "ui": inspect.signature(open_cli.ui).parameters["port"].default}


@pytest.fixture(scope="module")
def rehearsal() -> ModuleType:
    """docker/rehearse.py, imported: it reads the Dockerfile."""
    spec = importlib.util.spec_from_file_location("rehearse", ROOT / "docker" / "rehearse.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]


def words_of(rehearsal: ModuleType, stage: str, name: str) -> list[str]:
    return [words for found, words in rehearsal.instructions(stage) if found == name]


def test_what_is_copied_is_there_and_reaches_the_builder(rehearsal: ModuleType) -> None:
    ignored = (ROOT / "docker" / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    sent = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    sources = {word for words in words_of(rehearsal, "build", "COPY") for word in words.split()[:-1]}
    assert sources == sent
    assert "*" in ignored
    for source in sources:
        assert (ROOT / source).exists(), source


def test_what_the_package_is_built_from_is_copied(rehearsal: ModuleType) -> None:
    copied = {word for words in words_of(rehearsal, "build", "COPY") for word in words.split()[:-1]}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (readme,) = re.findall(r'^readme = "(.*)"$', project, re.MULTILINE)
    (license_,) = re.findall(r'^license-files = \["(.*)"\]$', project, re.MULTILINE)
    assert {readme, license_, "pyproject.toml"} <= copied


def test_extras_are_those_of_the_project(rehearsal: ModuleType) -> None:
    (words,) = [words for words in words_of(rehearsal, "build", "ARG") if words.startswith("EXTRAS=")]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in words.removeprefix("EXTRAS=").split(","):
        assert re.search(rf"^{name} = \[", project, re.MULTILINE), f"no extra {name}"
    assert {"serve", "ui"} <= set(words.removeprefix("EXTRAS=").split(","))


def test_python_of_the_image_is_one_that_we_support(rehearsal: ModuleType) -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ARG PYTHON=3\.(\d+)$", text, re.MULTILINE)
    (least,) = re.findall(r'^requires-python = ">=3\.(\d+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)
    assert int(version) >= int(least)


def test_ports_are_those_of_the_commands(rehearsal: ModuleType, services: dict[str, dict[str, Any]]) -> None:
    assert {int(port) for port in words_of(rehearsal, "cpu", "EXPOSE")[0].split()} == set(PORTS.values())
    for name, service in services.items():
        if name != "download":
            port = PORTS[name.removesuffix("-cuda")]
            assert service["ports"] == [f"127.0.0.1:{port}:{port}"], "open to this machine alone"
            assert f"127.0.0.1:{port}/" in rehearsal.health(service)


def test_health_check_asks_a_route_that_exists(rehearsal: ModuleType, services: dict[str, dict[str, Any]]) -> None:
    paths = {route.path for route in router.routes}
    for name in ("serve", "serve-cuda"):
        (path,) = re.findall(r"http://[^/]*(/[^']*)'", rehearsal.health(services[name]))
        assert path in paths
    for service in services.values():
        compile(rehearsal.health(service), "health check", "exec") if "ports" in service else None


def test_commands_are_taken_by_the_command_line(rehearsal: ModuleType, services: dict[str, dict[str, Any]]) -> None:
    (entry,) = words_of(rehearsal, "cpu", "ENTRYPOINT")
    (command,) = words_of(rehearsal, "cpu", "CMD")
    assert yaml.safe_load(entry) == ["bagel"]
    every = [yaml.safe_load(command), *(service["command"] for service in services.values() if "command" in service)]
    for words in every:
        cli.app.parse_args(words, exit_on_error=False, print_error=False)
    assert services["download"]["entrypoint"] == ["bagel", "download"]


def test_nobody_runs_as_root(rehearsal: ModuleType, services: dict[str, dict[str, Any]]) -> None:
    for stage in ("cpu", "cuda"):
        assert words_of(rehearsal, stage, "USER")[-1] == "bagel"
    for service in services.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_the_image_itself_does_not_serve_without_keys(rehearsal: ModuleType) -> None:
    assert "--open" not in words_of(rehearsal, "cpu", "CMD")[0]


def test_models_are_mounted_where_they_cannot_be_changed(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        (models,) = [volume for volume in service["volumes"] if "/models" in volume.partition("}")[2]]
        assert models.endswith(":/models" if name == "download" else ":/models:ro")
    for name in ("ui", "ui-cuda", "serve", "serve-cuda"):
        assert services[name]["environment"]["BAGEL_MODEL"] == "${BAGEL_MODEL:-mini}"
    assert find_model("mini").is_dir()


def test_gpus_are_asked_for_by_the_cuda_services_alone(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert ("deploy" in service) == name.endswith("-cuda"), name
        assert service["build"]["target"] == ("cuda" if name.endswith("-cuda") else "cpu")
        assert service["image"] == f"bagel:{service['build']['target']}"


def test_documented_commands_name_services_that_exist(services: dict[str, dict[str, Any]]) -> None:
    for page in ("README.md", "README.zh.md", "docs/docker.md", "compose.yaml"):
        text = (ROOT / page).read_text(encoding="utf-8")
        found = re.findall(r"docker compose (?:up|run)((?: --?[\w-]+)*) ([\w-]+)", text)
        assert found, page
        assert {name for _, name in found} <= set(services), page


def test_documented_builds_name_stages_that_exist(rehearsal: ModuleType) -> None:
    text = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8")
    for line in re.findall(r"^docker build .*$", text, re.MULTILINE):
        words = shlex.split(line)
        assert (ROOT / words[words.index("-f") + 1]).exists()
        assert rehearsal.instructions(words[words.index("--target") + 1])


def test_nothing_large_or_private_is_sent(rehearsal: ModuleType) -> None:
    ignored = [line for line in (ROOT / "docker" / "Dockerfile.dockerignore").read_text("utf-8").split("\n") if line]
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for name in ("models", "out", ".git", ".venv", "runs"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in kept)
