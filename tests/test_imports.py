"""Who may import whom, read from the source, and what importing does."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

BASE = {"errors", "options", "sequence"}
MODEL = BASE | {"tokens", "images", "pack", "runs", "model"}
LOADED = MODEL | {"checkpoint", "parallel", "packed_files", "devices", "lora", "lora_files"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "version": set(),
    "waiting": set(),
    "__main__": {"app", "waiting"},
    "options": {"errors"},
    "sequence": {"errors"},
    "devices": {"errors"},
    "tokens": BASE,
    "images": BASE,
    "runs": {"sequence"},
    "pack": {"sequence", "images", "errors"},
    "model": MODEL,
    "tensor_files": {"errors"},
    "formats": {"formats", "tensor_files", "errors"},
    "misfit": set(),
    "packed_files": {"model", "tensor_files", "parallel", "errors"},
    "checkpoint": {"checkpoint", "model", "tokens", "tensor_files", "formats", "packed_files", "misfit", "errors"}
    | {"parallel"},
    "memory": LOADED | {"memory", "tensor_files"},
    "parallel": {"parallel", "model", "errors"},
    "lora": {"checkpoint", "model", "errors"},
    "lora_files": {"lora", "checkpoint", "model", "tensor_files", "errors"},
    "hub_clients": {"errors"},
    "hub_bars": {"errors", "hub_clients"},
    "hub": {"errors", "hub_clients", "hub_bars"},
    "infer": LOADED | {"infer", "hub", "memory"},
    "data": {"data", "sequence", "pack", "runs", "tokens", "images", "errors", "model.config", "world"},
    "bench": LOADED | {"bench", "infer", "memory", "options", "version"},
    "train": LOADED | {"train", "data", "infer", "eval", "version", "bench"},
    "mini": LOADED
    | {"mini", "data", "train", "world", "eval", "infer", "options", "version", "tensor_files"}
    | {"waiting"},
    "world": BASE | {"world", "images"},
    "eval": {"eval", "infer", "options", "errors", "world", "version"},
    # A command is thin and calls its room; the model itself is reached through `infer`.
    "app": {"app", "infer", "memory", "options", "images", "errors", "hub", "checkpoint", "version", "model.config"}
    | {"data", "train", "world", "eval", "bench", "model.published"},
    "": {"errors", "options", "infer", "version"},
}
"""Rooms, and what each may import of ours: a room with all in it, or one module of it. "" is `bagel` itself."""


@dataclass(frozen=True)
class Import:
    """One imported module. at_once: when the importing module is imported, not later in a function."""

    name: str
    line: int
    at_once: bool


def imports_of(module: str) -> Iterator[Import]:
    path = MODULES[module]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    late = {id(inner) for node in ast.walk(tree) if is_late(node) for inner in ast.walk(node)}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) not in late)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (above, node.module) if part)
            for alias in node.names:
                whole = f"{origin}.{alias.name}"
                name = whole if not origin.startswith("bagel") or whole in MODULES else origin
                yield Import(name, node.lineno, id(node) not in late)


def is_late(node: ast.AST) -> bool:
    for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return for_types or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def is_allowed(module: str, imported: str) -> bool:
    inside = imported.removeprefix("bagel").removeprefix(".")
    return any(inside == one or inside.startswith(f"{one}.") for one in MAY_IMPORT[room(module)])


def test_every_room_has_its_rule():
    rooms = {room(module) for module in MODULES}
    assert rooms <= set(MAY_IMPORT), "say in MAY_IMPORT what the new room may import"


@pytest.mark.parametrize("where", sorted({room(module) for module in MODULES}))
def test_direction(where):
    wrong = [
        f"{module}:{found.line} imports {found.name}"
        for module in MODULES
        if room(module) == where
        for found in imports_of(module)
        if found.name.split(".")[0] == "bagel" and found.name != "bagel" and not is_allowed(module, found.name)
    ]
    assert not wrong


def test_rules_have_no_circle():
    graph = {name: {one.split(".")[0] for one in allowed} - {name} for name, allowed in MAY_IMPORT.items()}
    TopologicalSorter(graph).prepare()


def test_modules_have_no_circle():
    graph = {
        module: {found.name for found in imports_of(module) if found.at_once and found.name in MODULES} - {module}
        for module in MODULES
        if MODULES[module].name != "__init__.py"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_model_knows_nothing_of_parallelism():
    for module, path in MODULES.items():
        if room(module) == "model":
            assert not [found for found in imports_of(module) if found.name.startswith("torch.distributed")], module
            assert "torch.distributed" not in {
                ast.unparse(n) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)
            }, module


def test_flash_attn_is_nowhere_imported():
    assert not [m for m in MODULES for found in imports_of(m) if found.name.split(".")[0] == "flash_attn"]


PROBE = """
import importlib, json, os, pkgutil, sys
import numpy, PIL.Image, safetensors.torch, tokenizers, torch

made, compiled = [], []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT:
        made.append(str(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "tempfile.mkstemp", "tempfile.mkdtemp"):
        made.append(str(arguments[0]))
sys.addaudithook(watch)
torch.compile = lambda *a, **k: compiled.append(repr(a)) or (a[0] if a else lambda f: f)

before = set(sys.modules)
import bagel
new = set(sys.modules) - before
light = {"numpy", "PIL", "safetensors", "tokenizers", "torch"}
roots = {name.split(".")[0] for name in new} - set(sys.stdlib_module_names) - light
heavy = sorted(name for name in new if name.startswith(("torch._dynamo", "torch._inductor", "torch.distributed")))

absent = []
for found in pkgutil.walk_packages(bagel.__path__, "bagel."):
    try:
        importlib.import_module(found.name)
    except ImportError as error:
        if (error.name or "bagel").split(".")[0] == "bagel":
            raise
        absent.append(error.name)
print(json.dumps({"roots": sorted(roots), "heavy": heavy, "made": made, "compiled": compiled, "absent": absent}))
"""


def test_importing_loads_makes_and_compiles_nothing(tmp_path):
    """First `import bagel`, then every module of it; what an extra brings may be absent."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROBE], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["roots"] == ["bagel"], "heavy imports belong into the function that needs them"
    assert not report["heavy"]
    assert not report["made"]
    assert not report["compiled"]
    assert not list(tmp_path.iterdir())


NAMES = """
import sys
import bagel
assert not [name for name in sys.modules if name.startswith("bagel.")], "the package itself imports nothing"
for name in bagel.__all__:
    assert getattr(bagel, name) is not None
from bagel import *
assert Bagel.load and "Bagel" in dir(bagel) and not hasattr(bagel, "nothing")
"""
HELP = """
import os, sys
sys.argv = ["bagel", *sys.argv[1:]]
from bagel.__main__ import main
main()
assert "OMP_WAIT_POLICY" in os.environ
print(*{"torch", "numpy", "PIL", "scipy", "tokenizers"} & set(sys.modules), file=sys.stderr)
"""


def test_names_of_the_package_come_when_asked_for():
    done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["draw", "--help"], ["eval", "world", "--help"]])
def test_help_waits_for_nothing_heavy(words):
    done = subprocess.run([sys.executable, "-c", HELP, *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr.strip() == ""
