"""Downloads against a stand-in for both hubs on 127.0.0.1: the real client libraries, no network."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

import pytest

from bagel import hub, hub_clients
from bagel.errors import BagelError, CheckpointError, InputError

NAME = "org/BAGEL-tiny"
REVISION = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"llm_config.json": b'{"hidden_size": 8}', "vit_config.json": b"{}", "merges.txt": b"a b\n"}
BIG = bytes(range(256)) * 4096  # 1 MiB
REPOSITORY = {
    **SMALL,
    "ae.safetensors": b"autoencoder" * 100,
    "ema.safetensors": BIG,
    "model-00001-of-00002.safetensors": b"a shard",
    "model-00002-of-00002.safetensors": b"its twin",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"a pickle",
    "optimizer.pt": b"a pickle",
    "modeling.py": b"print('run me')",
    "README.md": b"# BAGEL",
}
SHARDS = {name for name in REPOSITORY if name.startswith("model-")} | {"model.safetensors.index.json"}
WANTED = {*SMALL, "ae.safetensors", "ema.safetensors"}


@dataclass
class StandIn:
    """The two hubs' answers and faults; `asked` holds (method, file or "list", Range header)."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(REPOSITORY))
    status: int = 200
    damaged: str = ""  # this file's last byte is sent wrong
    cut: str = ""  # of this file half is sent, then the line stays silent
    silent: bool = False  # no answer to the listing
    stop: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def fetched(self) -> set[str]:
        return {name for method, name, _ in self.asked if method == "GET" and name != "list"}

    def huggingface_list(self) -> dict[str, object]:
        def sibling(name: str, data: bytes) -> dict[str, object]:
            entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": git_sha1(data)}
            if name.endswith((".safetensors", ".bin", ".pt")):
                entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
            return entry

        return {"id": NAME, "sha": REVISION, "siblings": [sibling(*item) for item in self.files.items()]}

    def modelscope_list(self) -> dict[str, object]:
        files = [
            {"Name": name, "Path": name, "Type": "blob", "Size": len(data), "Sha256": sha256(data)}
            for name, data in self.files.items()
        ]
        folder = {"Name": "assets", "Path": "assets", "Type": "tree", "Size": 0, "Sha256": ""}
        return {"Code": 200, "Success": True, "Message": "", "Data": {"Files": [*files, folder]}}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def handler(hub_: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            url = urlparse(self.path)
            query = parse_qs(url.query)
            if url.path == f"/{NAME}/resolve/{REVISION}/{Path(url.path).name}":
                self.send_file(unquote(Path(url.path).name))
            elif url.path == f"/api/v1/models/{NAME}/repo" and "FilePath" in query:
                self.send_file(query["FilePath"][0])
            else:
                hub_.asked.append((self.command, "list", None))
                if hub_.silent:
                    hub_.stop.wait(20)
                of_modelscope = "/api/v1/" in url.path
                self.send_json(hub_.modelscope_list() if of_modelscope else hub_.huggingface_list())

        def send_json(self, value: dict[str, object]) -> None:
            body = json.dumps(value).encode()
            if hub_.status != 200:
                body = json.dumps({"Code": hub_.status, "Message": "no", "error": "no"}).encode()
            self.send_response(hub_.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_file(self, name: str) -> None:
            asked_range = self.headers.get("Range")
            hub_.asked.append((self.command, name, asked_range))
            data = hub_.files[name]
            first, _, last = (asked_range or "bytes=0-").removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(data) - 1)
            self.send_response(206 if asked_range else 200)
            if asked_range:
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
            self.send_header("ETag", f'"{sha256(data)}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("Content-Length", str(end + 1 - start))
            self.end_headers()
            if self.command == "HEAD":
                return
            body = data[start : end + 1]
            if hub_.damaged == name:
                body = body[:-1] + bytes([body[-1] ^ 1])
            if hub_.cut == name:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                hub_.stop.wait(20)
                self.close_connection = True
                return
            self.wfile.write(body)

    return Handler


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    state = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(state))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", state.url)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope-cache"))
    yield state
    state.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["huggingface", "modelscope"])
def source(request: pytest.FixtureRequest, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both hubs in turn, their libraries pointed at the stand-in and made impatient."""
    if request.param == "huggingface":
        constants = pytest.importorskip("huggingface_hub.constants")
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
        template = stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 4)
    else:
        library = pytest.importorskip("modelscope_hub")
        library.set_default_config(library.HubConfig())
        monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1, raising=False)
        monkeypatch.setattr("modelscope_hub._legacy_api.API_TIMEOUT", 4, raising=False)
        monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_TIMEOUT_SECONDS", 4, raising=False)
    return request.param


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".bagel-download.json"}


def test_fetches_what_a_bagel_folder_needs_and_no_pickle(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    to = tmp_path / "models" / "tiny"
    assert hub.download(NAME, source=source, to=to, progress=False) == to
    assert names(to) == stand_in.fetched() == WANTED
    assert all((to / name).read_bytes() == REPOSITORY[name] for name in WANTED)


def test_a_second_run_fetches_nothing(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    stand_in.asked.clear()
    hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    assert stand_in.fetched() == set()


def test_a_damaged_file_is_fetched_again(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    to = hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    (to / "ae.safetensors").write_bytes(b"X" * len(REPOSITORY["ae.safetensors"]))
    (to / "vit_config.json").write_bytes(b"[]")
    stand_in.asked.clear()
    hub.download(NAME, source=source, to=to, progress=False)
    assert stand_in.fetched() == {"ae.safetensors", "vit_config.json"}
    assert (to / "ae.safetensors").read_bytes() == REPOSITORY["ae.safetensors"]


def test_goes_on_after_a_kill(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    """A process killed in the middle of the weights leaves no file of that name; the next fetches the rest."""
    to, stand_in.cut = tmp_path / "m", "ema.safetensors"
    small_chunks = "import huggingface_hub.constants as c; c.DOWNLOAD_CHUNK_SIZE = 65536; "
    code = (
        (small_chunks if source == "huggingface" else "")
        + "import sys; from bagel.hub import download; from pathlib import Path; "
        + "download(sys.argv[1], source=sys.argv[2], to=Path(sys.argv[3]))"
    )
    path = os.pathsep.join([str(Path(hub.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", code, NAME, source, str(to)], env={**os.environ, "PYTHONPATH": path}
    )
    limit = time.monotonic() + 20
    while hub_clients.held(to / ".bagel-download") < len(BIG) // 4:
        assert process.poll() is None, "the download ended before it was killed"
        assert time.monotonic() < limit, "the download never got going"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "ema.safetensors" not in names(to)
    with pytest.raises(CheckpointError, match=rf"bagel download {NAME} --from {source} --to {to}"):
        hub.resolve(NAME)

    stand_in.cut = ""
    stand_in.asked.clear()
    hub.download(NAME, source=source, to=to, progress=False)
    ranges = [asked for method, name, asked in stand_in.asked if method == "GET" and name != "list"]
    assert len(ranges) == 1
    assert int(ranges[0].removeprefix("bytes=").split("-")[0]) >= len(BIG) // 4
    assert (to / "ema.safetensors").read_bytes() == BIG
    assert names(to) == WANTED


def test_what_arrives_damaged_gets_no_name(
    stand_in: StandIn, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source == "modelscope":  # which tries three times by itself, waiting in between
        monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_HASH_RETRY_TIMES", 1, raising=False)
    stand_in.damaged = "ema.safetensors"
    with pytest.raises(BagelError, match="damaged"):
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    assert names(tmp_path / "m") == WANTED - {"ema.safetensors"} | {".bagel-download"}
    stand_in.damaged = ""
    hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    assert names(tmp_path / "m") == WANTED


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, f"There is no model {NAME} at .*check the name"),
        (401, "without the right account .*log in with"),
        (403, "without the right account .*log in with"),
        (429, "slow down .*run the same command again"),
        (500, "in trouble just now"),
    ],
)
def test_refusals_are_one_sentence(stand_in: StandIn, source: str, tmp_path: Path, status: int, message: str) -> None:
    stand_in.status = status
    with pytest.raises(BagelError, match=message) as caught:
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_a_hub_that_stays_silent(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    stand_in.silent = True
    with pytest.raises(BagelError, match="did not answer in time"):
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)


def test_no_network(stand_in: StandIn, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:1"
    if source == "huggingface":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", nowhere)
    else:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", nowhere)
        library = pytest.importorskip("modelscope_hub")
        library.set_default_config(library.HubConfig())
    with pytest.raises(BagelError, match="cannot be reached: check the network"):
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)


def test_hugging_face_set_offline(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_OFFLINE", True)
    with pytest.raises(BagelError, match="HF_HUB_OFFLINE is set: unset it"):
        hub.download(NAME, to=tmp_path / "m", progress=False)


def test_a_disk_too_small(stand_in: StandIn, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(len(REPOSITORY[name]) for name in WANTED)
    disk = namedtuple("disk", "total used free")(10**9, 0, needed - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda path: disk)
    with pytest.raises(BagelError, match=f"{needed - 1:,} bytes free .* needs {needed:,}: free 1 bytes or"):
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    assert stand_in.fetched() == set()
    assert not (tmp_path / "m").exists()


def test_a_disk_that_fills_up(stand_in: StandIn, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if source == "huggingface":
        monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    else:
        monkeypatch.setattr("modelscope_hub.HubApi.download_file", full)
    with pytest.raises(BagelError, match="disk is full: free some space"):
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    assert names(tmp_path / "m") == {".bagel-download"}


def test_a_folder_that_cannot_be_written(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot be written .*choose another --to"):
        hub.download(NAME, source=source, to=tmp_path / "file" / "m", progress=False)
    assert stand_in.fetched() == set()


def test_files_of_the_user_are_not_replaced(stand_in: StandIn, source: str, tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("mine")
    with pytest.raises(InputError, match=r"already holds another merges.txt: move it away"):
        hub.download(NAME, source=source, to=tmp_path, progress=False)
    assert (tmp_path / "merges.txt").read_text() == "mine"
    assert stand_in.fetched() == set()


@pytest.mark.parametrize(
    ("dropped", "weights"),
    [
        ({"ema.safetensors"}, SHARDS),
        ({"ema.safetensors", "model-00002-of-00002.safetensors"}, None),
        ({"llm_config.json"}, None),
    ],
)
def test_which_weights(
    stand_in: StandIn, source: str, tmp_path: Path, dropped: set[str], weights: set[str] | None
) -> None:
    stand_in.files = {name: data for name, data in REPOSITORY.items() if name not in dropped}
    if weights is None:
        with pytest.raises(CheckpointError, match=f"{NAME} is not a BAGEL model: its repository holds no"):
            hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
        assert stand_in.fetched() == set()
    else:
        hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
        assert names(tmp_path / "m") == WANTED - dropped | weights


def test_the_bar_is_on_stderr(
    stand_in: StandIn, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.download(NAME, source=source, to=tmp_path / "m")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "ema.safetensors" in shown.err
    assert "1.0/1.0 MB" in shown.err


@pytest.mark.parametrize("name", ["BAGEL-7B-MoT", "org/../secret", "../x", "a/b/c", ""])
def test_names_that_are_none(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="org/name"):
        hub.download(name, to=tmp_path)


@pytest.mark.parametrize(
    ("source", "library", "extra"),
    [("huggingface", "huggingface_hub.file_download", "hub"), ("modelscope", "modelscope_hub", "modelscope")],
)
def test_a_missing_library(
    source: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(BagelError, match=rf"pip install 'bagel-mot\[{extra}\]'"):
        hub.download(NAME, source=source, to=tmp_path)


def test_resolve_takes_a_folder_or_what_was_downloaded(
    stand_in: StandIn, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    assert hub.resolve(str(tmp_path / "mine")) == tmp_path / "mine"
    to = hub.download(NAME, source=source, to=tmp_path / "m", progress=False)
    stand_in.asked.clear()
    assert hub.resolve(NAME) == to
    assert stand_in.asked == []


def test_resolve_looks_into_the_hugging_face_cache(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "huggingface"
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "HF_HUB_CACHE", str(cache))
    model = cache / ("models--" + NAME.replace("/", "--"))
    snapshot = model / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(REVISION)
    for name in ("llm_config.json", "ae.safetensors"):
        (snapshot / name).write_text("")
    with pytest.raises(CheckpointError, match="There is no folder"):
        hub.resolve(NAME)
    (snapshot / "ema.safetensors").write_text("")
    assert hub.resolve(NAME) == snapshot


def test_resolve_says_the_command_and_never_asks_a_hub(stand_in: StandIn) -> None:
    command = f"bagel download {NAME} --from huggingface --to models/BAGEL-tiny"
    with pytest.raises(CheckpointError, match=command):
        hub.resolve(NAME)
    with pytest.raises(CheckpointError, match="There is no model folder no/such/folder"):
        hub.resolve("no/such/folder")
    folder = "models/BAGEL-7B-MoT"  # as the guides call it, before it is there
    with pytest.raises(CheckpointError, match=f"bagel download ByteDance-Seed/BAGEL-7B-MoT .* --to {folder}"):
        hub.resolve(folder)
    assert stand_in.asked == []
