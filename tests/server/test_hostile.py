"""Garbage, half a body, bombs, addresses and paths: refused in OpenAI's shape, and the rest goes on."""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import time
import zlib

import httpx
import pytest
from PIL import Image

from bagel.app.server import remote
from bagel.app.server.problems import ApiError
from server.live import data_url, png, running

CHAT = "/v1/chat/completions"
DRAW = {"prompt": "a cube", "size": "32x32", "num_timesteps": 3}


def said(text="hello", **fields):
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 3, **fields}


def shown(url):
    return said([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}])


def refused(response, status, words=""):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert words in error["message"]
    for leak in ("Traceback", "/src/", "site-packages", ".py", "bagel."):
        assert leak not in response.text
    return error


@pytest.fixture(autouse=True)
def _unharmed(live):
    yield
    assert live.post(CHAT, json=said()).status_code == 200
    live.wait_idle()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"\xff\xfe\x00", "JSON"),
        (b'{"messages": [', "JSON"),
        (b"[1]", "valid dictionary"),
        (b"[" * 100_000, "nested"),
        (b'{"messages": 5}', "messages"),
        (b'{"messages": []}', "messages"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "Unicode"),
        (b'{"messages": [{"role": "user", "content": ""}]}', "empty"),
        (b'{"messages": [{"role": "wizard", "content": "x"}]}', "role"),
        (b'{"messages": [{"role": "user", "content": "x"}], "wings": 2}', "wings"),
        (b'{"messages": [{"role": "user", "content": "x"}], "seed": ' + b"9" * 6000 + b"}", "JSON"),
    ],
)
def test_garbage(live, body, words):
    refused(live.post(CHAT, content=body, headers={"content-type": "application/json"}), 400, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"n": 100}, "n is 100"),
        ({"stop": ["x"]}, "stop"),
        ({"top_p": 0.5}, "top_p"),
        ({"height": 64}, "modalities"),
        ({"modalities": ["text", "image"], "height": 33}, "multiple"),
    ],
)
def test_values_of_chats(live, fields, words):
    refused(live.post(CHAT, json=said(**fields)), 400, words)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"size": "huge"}, "size"),
        ({"size": "512x512"}, "pixels"),
        ({"size": "32x32", "height": 32}, "either"),
        ({"num_timesteps": 1}, "num_timesteps"),
        ({"num_timesteps": 9999}, "num_timesteps"),
        ({"cfg_interval": [1, 0]}, "cfg_interval"),
        ({"cfg_renorm_type": "loud"}, "cfg_renorm_type"),
        ({"noise": [[1.0]]}, "noise"),
        ({"response_format": "url"}, "response_format"),
        ({"prompt": " "}, "empty"),
    ],
)
def test_values_of_pictures(live, fields, words):
    refused(live.post("/v1/images/generations", json={**DRAW, **fields}), 400, words)


def test_other_addresses_methods_and_types(live):
    refused(httpx.get(f"{live.url}/etc/passwd"), 404)
    refused(httpx.get(live.url + CHAT), 405)
    refused(live.post(CHAT, content=b"{}", headers={"content-type": "text/plain"}), 400, "application/json")


def test_a_prompt_is_never_a_path(live, bagel, tmp_path, pictures):
    path = tmp_path / "secret.png"
    pictures["wide"].save(path)
    found = live.post(CHAT, json=said(str(path))).json()["choices"][0]["message"]["content"]
    from bagel import Text

    assert found == bagel.chat(Text(path), max_tokens=3).text
    for url in (str(path), path.as_uri(), f"file://{path}"):
        refused(live.post(CHAT, json=shown(url)), 400, "data URL")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.png",
        "https://example.com/a.png",
        "https://localhost/a.png",
        "https://127.0.0.1:443/a.png",
        "https://[::1]/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[bad",
        "ftp://example.com/a.png",
        "data:image/png,abc",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,aGVsbG8=",
        "",
    ],
)
def test_addresses_are_not_fetched(live, url, monkeypatch):
    monkeypatch.setattr(remote, "_public_address", lambda *a: pytest.fail("it looked"))
    refused(live.post(CHAT, json=shown(url)), 400)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1", "100.64.0.1"])
def test_an_allowed_name_that_leads_inside_is_refused(address, monkeypatch):
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *a, **k: [(0, 0, 0, "", (address, 443))])
    monkeypatch.setattr(remote.socket, "create_connection", lambda *a, **k: pytest.fail("it connected"))
    with pytest.raises(ApiError, match="not fetched"):
        remote.fetch("https://pictures.example/a.png", ["pictures.example"], 1000)


def test_an_allowed_address_is_fetched_from_where_it_was_looked_up(monkeypatch):
    seen = []
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *a, **k: [(0, 0, 0, "", ("93.184.215.14", 443))])
    monkeypatch.setattr(remote, "_get", lambda *a: seen.append(a) or b"content")
    assert remote.fetch("https://Pictures.example/a.png?b=1", ["pictures.example"], 9) == b"content"
    assert seen == [("pictures.example", "93.184.215.14", "/a.png?b=1", 9)]
    for url in ("https://u:p@pictures.example/a", "https://pictures.example:8443/a", "https://pictures.example/a b"):
        with pytest.raises(ApiError):
            remote.fetch(url, ["pictures.example"], 9)


def test_a_host_that_dribbles_is_left(monkeypatch):
    class Slow:
        status = 200

        def read1(self, count):
            time.sleep(0.05)
            return b"x"

    class Connection:
        def __init__(self, *a, **k):
            pass

        request = close = __init__

        def getresponse(self):
            return Slow()

    class Secure:
        def wrap_socket(self, plain, server_hostname):
            return plain

    monkeypatch.setattr(remote, "SECONDS", 0.3)
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *a, **k: [(0, 0, 0, "", ("93.184.215.14", 443))])
    monkeypatch.setattr(remote.socket, "create_connection", lambda *a, **k: contextlib.nullcontext())
    monkeypatch.setattr(remote.ssl, "create_default_context", Secure)
    monkeypatch.setattr(remote.http.client, "HTTPSConnection", Connection)
    began = time.monotonic()
    with pytest.raises(ApiError, match="could not be fetched"):
        remote.fetch("https://pictures.example/a.png", ["pictures.example"], 1000)
    assert time.monotonic() - began < 5


def bomb(width, height):
    """A PNG of a few kilobytes that unpacks to width x height."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width // 8 + 1) * height, 20_000_000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_bombs(live, side):
    file = {"image": ("a.png", bomb(side, side))}
    refused(live.post("/v1/images/edits", data={"prompt": "red"}, files=file), 413, "pixels")


def test_pictures_that_are_none(live, pictures):
    half = png(pictures["wide"])[:300]
    for content in (b"", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", half):
        refused(live.post("/v1/images/edits", data={"prompt": "red"}, files={"image": ("a.png", content)}), 400)
    refused(live.post("/v1/images/edits", data={"prompt": "red"}, files={"image": (None, "/etc/passwd")}), 400, "file")
    refused(live.post("/v1/images/edits", files={"prompt": (None, "red")}), 400, "no picture")
    refused(live.post("/v1/images/edits", content=b"--x", headers={"content-type": "multipart/form-data"}), 400)
    many = [("image[]", ("a.png", png(Image.new("RGB", (8, 8))))) for _ in range(40)]
    assert live.post("/v1/images/edits", data={"prompt": "red"}, files=many).status_code in (400, 413)


def test_too_large_a_body(live):
    refused(live.post(CHAT, json=said("x" * 3_000_000)), 413, "bytes")

    def endless():
        while True:
            yield b"x" * 65536

    with contextlib.suppress(httpx.WriteError):  # the server may close while we still send
        refused(live.post(CHAT, content=endless(), headers={"content-type": "application/json"}), 413, "bytes")
    refused(live.post(CHAT, json=said("x " * 150_000)), 413, "letters")
    many = {**said(), "messages": [{"role": "user", "content": "x " * 1000} for _ in range(150)]}
    refused(live.post(CHAT, json=many), 413, "letters")


def test_a_huge_picture_in_json(live):
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "PNG")
    refused(live.post(CHAT, json=shown(data_url(Image.open(file)))), 413, "2000 x 2000")


def test_half_a_body(live, served):
    host, port = live.url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + b'{"messages": [')
    with running(served, body_timeout=0.3) as slow:
        port = int(slow.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(head.encode() + b'{"messages": [')
            found = b"".join(iter(lambda: connection.recv(65536), b""))  # to its end: head and body may come apart
        assert b" 400 " in found.split(b"\r\n")[0]
        assert b"did not arrive" in found


def test_keys(served):
    with running(served, keys=("one", "two")) as live:
        refused(live.post(CHAT, json=said()), 401, "API key")
        for header in ("Bearer three", "Bearer", "Basic one", "one", "Bearer \xe9"):
            headers = {"authorization": header.encode("latin-1")}
            assert refused(live.post(CHAT, json=said(), headers=headers), 401)["code"] == "invalid_api_key"
        assert live.post(CHAT, json=said(), headers={"authorization": "Bearer two"}).status_code == 200
        assert httpx.get(f"{live.url}/health").status_code == 200
        assert httpx.get(f"{live.url}/metrics").status_code == 401
