"""What README and docs say is so: commands and snippets run, links lead somewhere, tables hold the values of
the code, the reference of commands is fresh, and every Chinese page has the blocks and pictures of the English one.

A ```bash or ```python block is run, in the order of its page, in an empty folder with a few pictures; the
embedded model stands in for models/BAGEL-7B-MoT, and presets ask for small pictures. `no-run` behind the
language leaves it at a check of the words. A ```json block with a name is a file. In a ```console block the
lines after `$ bagel ...` must be what the command prints.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from PIL import Image

from bagel.app import cli
from bagel.options import PRESETS, ImageOptions, TextOptions
from conftest import CHECKPOINT

ROOT = Path(__file__).parent.parent
README, CHINESE = "README.md", "README.zh.md"
GUIDES = (README, "CONTRIBUTING.md", "docs/design.md", "docs/python.md", "docs/troubleshooting.md")
EVERY_PAGE = sorted(
    str(path.relative_to(ROOT))
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "integrations").rglob("*.md")]
)
IN_CHINESE = [page for page in EVERY_PAGE if page.endswith(".zh.md")]
PICTURES = ("cat.png", "chart.png", "sofa.png", "photo.jpg")
QUICK = {"num_timesteps": 4, "max_tokens": 8}


class Block(NamedTuple):
    line: int
    language: str
    words: str  # what follows the language
    code: str


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    text = read(page)
    found = re.finditer(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", text, re.MULTILINE)
    return [Block(text.count("\n", 0, m.start()) + 2, m[1], m[2], m[3]) for m in found]


# --- running ---------------------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as a reader has it: a few pictures, a model; and presets that ask for little."""
    for number, name in enumerate(PICTURES):
        Image.new("RGB", (96, 64 + 16 * number), (40 * number, 90, 160)).save(tmp_path / name)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "BAGEL-7B-MoT").symlink_to(CHECKPOINT, target_is_directory=True)
    for job, preset in PRESETS.items():
        size = {"height": 64, "width": 64} if job == "draw" else {}
        monkeypatch.setitem(PRESETS, job, {**preset, **size, **QUICK})
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BAGEL_MODEL", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of so small a model's products, threads on a busy machine make a crawl
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def shell(desk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[str], Any]:
    """Runs one line of a shell as far as the documentation needs one; -> (exit code, what it printed)."""

    def run(line: str) -> tuple[int, str]:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            monkeypatch.setenv(name, value)
            return 0, ""
        said, _, command = line.rpartition(" | ")
        monkeypatch.setattr(sys, "stdin", io.StringIO(said.removeprefix("echo ").strip('"') + "\n"))
        program, *words = shlex.split(command, comments=True)
        check_word = {"make": _make, "pip": _pip, "python": _script, "docker": _compose}.get(program)
        if check_word:
            check_word(words)
            return 0, ""
        assert program == "bagel", f"the documentation test cannot run {line!r}"
        monkeypatch.setattr(sys, "argv", [program, *words])
        capfd.readouterr()
        try:
            code = cli.main() or 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, "".join(capfd.readouterr())

    return run


def _make(targets: list[str]) -> None:
    for target in targets:
        assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE), f"no make target {target}"


def _pip(words: list[str]) -> None:
    for extra in re.findall(r"\[(.*?)\]", " ".join(words)):
        for name in extra.split(","):
            assert re.search(rf"^{name} = \[", read("pyproject.toml"), re.MULTILINE), f"no extra {name}"


def _compose(words: list[str]) -> None:
    assert words[:2] == ["compose", "up"]
    assert re.search(rf"^  {words[2]}:", read("compose.yaml"), re.MULTILINE), f"no service {words[2]}"


def _script(words: list[str]) -> None:
    path = words[1].replace(".", "/") if words[0] == "-m" else words[0]
    assert words[0] == "-m" or (ROOT / path).exists(), f"there is no {path}"


@pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")
@pytest.mark.parametrize("page", GUIDES)
def test_commands_and_snippets_run(page: str, desk: Path, shell: Callable[[str], tuple[int, str]]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "json" and block.words:
            (desk / block.words).write_text(block.code, encoding="utf-8")
    for block in blocks(page):
        where = f"{page}:{block.line}"
        if block.language == "python":
            code = compile("\n" * (block.line - 1) + block.code, page, "exec")
            if block.words != "no-run":
                exec(code, names)
        elif block.language == "bash":
            for line in block.code.splitlines():
                if block.words == "no-run" and line.startswith("bagel "):
                    cli.app.parse_args(shlex.split(line, comments=True)[1:], exit_on_error=False, print_error=False)
                elif block.words != "no-run" and line and not line.startswith("#"):
                    code, printed = shell(line)
                    assert code == 0, f"{where}: {line}\n{printed}"
        elif block.language == "console":
            _check_session(where, block.code, shell)


def _check_session(where: str, code: str, shell: Callable[[str], tuple[int, str]]) -> None:
    for entry in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        line, _, wanted = entry.partition("\n")
        _, printed = shell(line)
        assert " ".join(wanted.split()) in " ".join(printed.split()), f"{where}: {line}\n{printed}"


def test_every_page_has_blocks_of_known_kinds() -> None:
    for page in GUIDES:
        for block in blocks(page):
            assert block.language in ("bash", "console", "python", "json", "text"), f"{page}:{block.line}"
        assert read(page).count("\n```") == 2 * len(blocks(page)), f"{page}: a block without a language"


# --- links, tables, the tree --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", EVERY_PAGE)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{page} links to {target}"


def anchors(text: str) -> set[str]:
    """The names that headings get: lower case, without punctuation, hyphens for blanks."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [README, CHINESE, "docs/python.md", "docs/python.zh.md"])
def test_tables_of_knobs_hold_the_presets(page: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", read(page), re.MULTILINE)
    shown = {name: (draw, edit) for name, draw, edit in rows if name in ImageOptions.__dataclass_fields__}
    for name, values in shown.items():
        for job, value in zip(("draw", "edit"), values, strict=True):
            preset = PRESETS[job].get(name)
            if preset is not None:
                assert as_value(value) == preset, f"{page}: {name} for {job}"
    assert {name for name in PRESETS["draw"] if name.startswith(("cfg", "num", "timestep"))} <= set(shown), page


def as_value(cell: str) -> Any:
    numbers = [float(word.replace(",", "")) for word in cell.split() if re.fullmatch(r"[\d.,]+", word)]
    if cell in ("no", "否"):
        return False
    return (tuple(numbers) if len(numbers) > 1 else numbers[0]) if numbers else cell


@pytest.mark.parametrize("page", ["docs/python.md", "docs/python.zh.md"])
def test_python_page_names_every_option(page: str) -> None:
    text = read(page)
    names = {f.name for cls in (ImageOptions, TextOptions) for f in fields(cls)}
    assert {name for name in names if f"`{name}`" not in text} == set()


@pytest.mark.parametrize("page", [README, CHINESE])
def test_the_tree_exists(page: str) -> None:
    (tree,) = [block.code for block in blocks(page) if block.language == "text"]
    stack: list[str] = []
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        for name in line.split("  ")[depth].strip().split(" "):
            stack[depth:] = [name]
            assert (ROOT / "/".join(stack)).exists(), f"{page}: {'/'.join(stack)}"


def test_marks_of_generated_tables_are_in_place() -> None:
    for page in (README, CHINESE):
        for name in ("parity", "speed"):
            assert re.search(rf"<!-- table:{name} -->\n.*\n<!-- /table:{name} -->", read(page), re.DOTALL), (page, name)


# --- Chinese pages -----------------------------------------------------------------------------------------


def english(page: str) -> str:
    return page.removesuffix(".zh.md") + ".md"


def bare(block: Block) -> tuple[str, str, str]:
    """A block without its comments, which a page has in its own language."""
    return block.language, block.words, re.sub(r"(^| +)# .*", "", block.code, flags=re.MULTILINE)


def targets(page: str) -> list[str]:
    """Where a page's links and pictures lead, without the anchors."""
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]


@pytest.mark.parametrize("page", IN_CHINESE)
def test_chinese_pages_have_the_same_blocks(page: str) -> None:
    def own(page: str) -> list[Block]:
        """All but the tree of README.md, which is told in words; that its names exist has a test of its own."""
        return [block for block in blocks(page) if (page, block.language) not in ((README, "text"), (CHINESE, "text"))]

    ours, theirs = own(page), own(english(page))
    for our, their in zip(ours, theirs, strict=False):
        assert bare(our) == bare(their), f"{page}:{our.line} is not {english(page)}:{their.line}"
    assert len(ours) == len(theirs)
    for one in (page, english(page)):
        assert len(re.findall("^```", read(one), re.MULTILINE)) == 2 * len(blocks(one)), f"{one}: a block is left out"


@pytest.mark.parametrize("page", IN_CHINESE)
def test_chinese_pages_have_the_same_pictures(page: str) -> None:
    def pictures(page: str) -> list[str]:
        return re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", read(page))

    assert pictures(page) == pictures(english(page))


@pytest.mark.parametrize("page", IN_CHINESE)
def test_chinese_pages_name_and_count_what_the_english_do(page: str) -> None:
    """Names in code, and numbers of two digits or more: what changes in English must change in Chinese too."""

    def facts(page: str) -> set[str]:
        text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
        words = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
        words = re.sub(r"([\d.]+) billion", lambda found: f"{float(found[1]) * 10:g} 亿", words)
        return {*re.findall(r"`([^`]+)`", text), *re.findall(r"(?<![\w.])\d[\d,]*\.?\d+", words)}

    assert facts(english(page)) - facts(page) == set()


@pytest.mark.parametrize("page", IN_CHINESE)
def test_pages_link_to_their_other_language(page: str) -> None:
    """And a Chinese page leads to Chinese ones, where there are any."""
    assert Path(page).name in targets(english(page)), f"{english(page)} does not link to {page}"
    assert Path(english(page)).name in targets(page), f"{page} does not link to {english(page)}"
    for target in targets(page):
        there = ((ROOT / page).parent / target).resolve()
        if there.suffixes == [".md"] and there != (ROOT / english(page)).resolve():
            assert not there.with_suffix(".zh.md").exists(), f"{page} links to {target}, not to its Chinese page"


# --- generated pages ---------------------------------------------------------------------------------------


def script(name: str) -> ModuleType:
    """A script of docs/, imported."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_reference_of_commands_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bagel"])  # the parser names the program by it
    fresh = script("commands").reference()
    assert " ".join(read("docs/cli.md").split()) == " ".join(fresh.split()), "run `python docs/commands.py`"


def test_pictures_can_be_drawn_and_are_small() -> None:
    drawn = script("pictures")
    for name in ("architecture", "rules"):
        sheet = getattr(drawn, name)()
        with Image.open(ROOT / "docs" / f"{name}.png") as kept:
            assert kept.size == (sheet.width, sheet.height)
        assert (ROOT / "docs" / f"{name}.png").stat().st_size < 300_000
