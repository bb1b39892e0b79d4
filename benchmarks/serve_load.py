"""Load on a server of its own on 127.0.0.1: many clients with mixed jobs, each answer checked against its single
run, beside clients that leave, send garbage, half a body or a bomb. Reports throughput against one request at a
time, latencies and memory as JSON.

    python benchmarks/serve_load.py --clients 64 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from bagel import Bagel


@dataclass(frozen=True)
class Task:
    """A request and the answer of its single run: a text, or a picture."""

    path: str
    body: dict[str, Any]
    wanted: str | Image.Image

    def is_right(self, answer: dict[str, Any]) -> bool:
        if isinstance(self.wanted, str):
            return answer["choices"][0]["message"]["content"] == self.wanted
        found = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
        distance = np.abs(np.array(found).astype(int) - np.array(self.wanted)).max()
        return found.size == self.wanted.size and bool(distance <= 1)


@dataclass
class Tally:
    """What came back. server_cpu, client_cpu: seconds that the processes computed, on all cores; both share them."""

    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    errors: list[str] = field(default_factory=list)
    elapsed: float = 0.0
    server_cpu: float = 0.0
    client_cpu: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.elapsed

    def report(self) -> dict[str, Any]:
        marks = statistics.quantiles(self.seconds, n=100)
        return {
            "answers": len(self.seconds),
            "wrong": self.wrong,
            "errors": len(self.errors),
            "first_errors": self.errors[:3],
            "per_second": round(self.rate, 2),
            "p50_seconds": round(marks[49], 3),
            "p95_seconds": round(marks[94], 3),
            "server_cpu_ms": round(1000 * self.server_cpu / len(self.seconds), 1),
            "client_cpu_ms": round(1000 * self.client_cpu / len(self.seconds), 1),
        }


def tasks(bagel: Bagel) -> list[Task]:
    """40 requests: half of them chats, some of those about a picture; drawings and edits of several sizes."""
    rng, made = random.Random(0), []
    for i in range(40):
        picture = Image.effect_noise((64 + 16 * (i % 3), 64), 60 + i).convert("RGB")
        steps, seed = 6 + i % 5, rng.randrange(10**6)
        options = {
            "num_timesteps": steps,
            "seed": seed,
            "cfg_renorm_type": ["global", "channel", "text_channel"][i % 3],
        }
        if i % 10 < 5:
            tokens = 32 + 8 * (i % 5)
            messages = [{"role": "user", "content": f"Tell me about number {i}."}]
            wanted = bagel.chat(messages[0]["content"], max_tokens=tokens).text
            made.append(Task("/v1/chat/completions", {"messages": messages, "max_tokens": tokens}, wanted))
        elif i % 10 < 6:
            parts = [
                {"type": "image_url", "image_url": {"url": url_of(picture)}},
                {"type": "text", "text": f"What? {i}"},
            ]
            body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 24}
            made.append(Task("/v1/chat/completions", body, bagel.chat([picture, f"What? {i}"], max_tokens=24).text))
        elif i % 10 < 9:
            width, height = 32 + 16 * (i % 3), 32
            body = {"prompt": f"a cube {i}", "size": f"{width}x{height}", **options}
            image = bagel.draw(f"a cube {i}", width=width, height=height, **options).image
            made.append(Task("/v1/images/generations", body, image))
        else:
            body = {"prompt": f"blue {i}", "image": url_of(picture), "size": "48x32", **options}
            image = bagel.edit(picture, f"blue {i}", width=48, height=32, **options).image
            made.append(Task("/v1/images/edits", body, image))
    rng.shuffle(made)
    return made


def url_of(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


class Connection:
    """Just enough of HTTP, so that the client takes little of the machine it measures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self.streams = self.streams or await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        content = json.dumps(body).encode()
        writer.write(request(path, len(content)) + content)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ")[1]), answer

    def close(self) -> None:
        if self.streams:
            self.streams[1].close()
        self.streams = None


def request(path: str, length: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


async def work(port: int, todo: Iterator[Task], until: float, tally: Tally) -> None:
    """One client, one request after the other."""
    connection = Connection(port)
    while time.perf_counter() < until:
        task = next(todo)
        began = time.perf_counter()
        try:
            status, answer = await connection.post(task.path, task.body)
        except (OSError, asyncio.IncompleteReadError) as error:
            tally.errors.append(repr(error))
            connection.close()
            continue
        if status != 200:
            tally.errors.append(f"{status} {answer}")
            continue
        tally.seconds.append(time.perf_counter() - began)
        tally.wrong += not task.is_right(answer)
    connection.close()


async def disturb(port: int, until: float) -> int:
    """A client that leaves in the middle, sends garbage, half a body, and a picture of 10,000 x 10,000."""
    file, count = io.BytesIO(), 0
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    bomb = {"prompt": "x", "image": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"}
    long = json.dumps({"prompt": "a cube", "size": "64x64", "num_timesteps": 200}).encode()
    while time.perf_counter() < until:
        for sent in (
            request("/v1/images/generations", len(long)) + long,
            request("/v1/chat/completions", 9) + b"{garbage}",
            request("/v1/chat/completions", 900) + b'{"messages": [',
        ):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            await writer.drain()
            await asyncio.sleep(0.2)
            writer.close()
            count += 1
        status, _ = await Connection(port).post("/v1/images/edits", bomb)
        assert status == 413, status
        count += 1
    return count


async def measure(port: int, todo: list[Task], clients: int, seconds: float, rude: int = 0) -> tuple[Tally, int]:
    tally, began = Tally(), time.perf_counter()
    server_cpu, client_cpu = await metric(port, "bagel_cpu_seconds_total"), time.process_time()
    until, queue = began + seconds, itertools.cycle(todo)
    workers = [work(port, queue, until, tally) for _ in range(clients)]
    *_, disturbed = await asyncio.gather(*workers, asyncio.gather(*[disturb(port, until) for _ in range(rude)]))
    tally.elapsed = time.perf_counter() - began
    tally.server_cpu = await metric(port, "bagel_cpu_seconds_total") - server_cpu
    tally.client_cpu = time.process_time() - client_cpu
    return tally, sum(disturbed)


async def metric(port: int, name: str) -> float:
    """A number of the server's about itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    return float(text.partition(f"\n{name} ")[2].partition("\n")[0])


async def memory(port: int, every: float, found: list[float]) -> None:
    """Resident bytes of the server, now and then."""
    while True:
        found.append(await metric(port, "bagel_memory_bytes"))
        await asyncio.sleep(every)


async def run(port: int, todo: list[Task], arguments: argparse.Namespace) -> dict[str, Any]:
    await measure(port, todo, 8, 3)  # warm
    alone, _ = await measure(port, todo, 1, arguments.alone)
    resident: list[float] = []
    watch = asyncio.create_task(memory(port, arguments.seconds / 10, resident))
    load, disturbed = await measure(port, todo, arguments.clients, arguments.seconds, arguments.rude)
    watch.cancel()
    again, _ = await measure(port, todo, 1, arguments.alone)
    before_after = (alone.rate + again.rate) / 2
    return {
        "clients": arguments.clients,
        "one_at_a_time": [alone.report(), again.report()],
        "load": load.report(),
        "disturbances": disturbed,
        "times_one_at_a_time": round(load.rate / before_after, 2),
        "memory_mib": [round(value / 2**20, 1) for value in resident],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rude", type=int, default=2, help="clients that misbehave")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--alone", type=float, default=15, help="seconds of one request at a time, before and after")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    todo = tasks(Bagel.load(arguments.model, device="cpu"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bagel.app.cli", "serve", "--port", str(port), "--threads", "1"]
    command += ["--model", arguments.model, "--device", "cpu"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        for _ in range(600):
            with socket.socket() as trial:
                if not trial.connect_ex(("127.0.0.1", port)):
                    break
            time.sleep(0.1)
        print(json.dumps(asyncio.run(run(port, todo, arguments)), indent=1))
    finally:
        server.terminate()
        server.wait(60)


if __name__ == "__main__":
    main()
