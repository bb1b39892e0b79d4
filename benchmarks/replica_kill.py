"""`bagel serve --replicas N` under load while its replicas are killed with SIGKILL, one every few seconds. Each answer
is compared with its single run. Prints a table; exits with 1 if a request got a wrong answer or none.

    python benchmarks/replica_kill.py --replicas 2 --clients 16 --seconds 60 --every 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from serve_load import Task, tasks

from bagel import Bagel

REPLICA = "ServeReplica:bagel:Model"
"""How Ray names the processes of the replicas."""


@dataclass
class Tally:
    """answered: rightly; retryable: with 503 and Retry-After, or a stream with that error as its last event; wrong:
    another answer than its single run; unclean: everything else, with what it was in `seen`."""

    counts: Counter[str] = field(default_factory=Counter)
    seen: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def unclean(self, what: str) -> None:
        self.counts["unclean"] += 1
        self.seen.append(what[:300])

    @property
    def accepted(self) -> int:
        return sum(self.counts.values())

    def table(self, killed: int) -> str:
        """In Markdown."""
        counts = self.counts
        rows = {
            "replicas killed": killed,
            "accepted": self.accepted,
            "answered": counts["whole"] + counts["stream"],
            "  of them streams": counts["stream"],
            "failed, retryable": counts["retryable"] + counts["stream retryable"],
            "  of these streams": counts["stream retryable"],
            "wrong": counts["wrong"],
            "lost or unclean": counts["unclean"],
        }
        lines = [f"| {name.ljust(20)} | {str(value).rjust(8)} |" for name, value in rows.items()]
        if self.seconds:
            p95 = sorted(self.seconds)[int(0.95 * (len(self.seconds) - 1))]
            lines.append(f"| {'p95 seconds'.ljust(20)} | {p95:8.2f} |")
        return "\n".join(["| what                 |   number |", "|----------------------|---------:|", *lines])


async def ask(client: httpx.AsyncClient, task: Task, streamed: bool, tally: Tally) -> None:
    """One request, counted once."""
    began = time.perf_counter()
    try:
        if streamed:
            await ask_streamed(client, task, tally)
        else:
            response = await client.post(task.path, json=task.body)
            if response.status_code == 200:
                tally.counts["whole" if task.is_right(response.json()) else "wrong"] += 1
            elif is_retryable(response):
                tally.counts["retryable"] += 1
            else:
                tally.unclean(f"{response.status_code} {response.text}")
    except (httpx.HTTPError, ValueError) as error:
        tally.unclean(repr(error))
    tally.seconds.append(time.perf_counter() - began)


async def ask_streamed(client: httpx.AsyncClient, task: Task, tally: Tally) -> None:
    async with client.stream("POST", task.path, json={**task.body, "stream": True}) as response:
        content = await response.aread()
    if response.status_code != 200:
        if is_retryable(response):
            tally.counts["stream retryable"] += 1
        else:
            tally.unclean(f"{response.status_code} {response.text}")
        return
    datas = [line.removeprefix("data: ") for line in content.decode().split("\n") if line.startswith("data: ")]
    last = datas[-1] if datas else ""
    if last == "[DONE]":
        tally.counts["stream" if is_right_stream(task, [json.loads(data) for data in datas[:-1]]) else "wrong"] += 1
    elif last and json.loads(last).get("error", {}).get("type") == "server_error":
        tally.counts["stream retryable"] += 1
    else:
        tally.unclean(f"a stream ended with {last!r}")


def is_right_stream(task: Task, events: list[dict[str, Any]]) -> bool:
    if isinstance(task.wanted, str):
        text = "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])
        return text == task.wanted
    return task.is_right({"data": [events[-1]]})


def is_retryable(response: httpx.Response) -> bool:
    """In OpenAI's shape."""
    if response.status_code not in (429, 503) or int(response.headers.get("retry-after", 0)) < 1:
        return False
    return set(response.json()["error"]) == {"message", "type", "param", "code"}


def replicas_of(server: int) -> list[psutil.Process]:
    """Processes of the server's replicas."""
    return [process for process in psutil.Process(server).children(recursive=True) if REPLICA in title_of(process)]


def title_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended
        return ""


async def kill(server: int, every: float, until: float) -> int:
    """One replica at a time, never the last; -> how many."""
    killed, rng = 0, random.Random(0)
    while time.perf_counter() + every < until:
        await asyncio.sleep(every)
        alive = replicas_of(server)
        if len(alive) > 1:
            os.kill(rng.choice(alive).pid, signal.SIGKILL)
            killed += 1
    return killed


async def load(url: str, server: int, todo: list[Task], arguments: argparse.Namespace) -> tuple[Tally, int]:
    tally, until = Tally(), time.perf_counter() + arguments.seconds
    limits = httpx.Limits(max_connections=arguments.clients)
    async with httpx.AsyncClient(base_url=url, timeout=180, limits=limits) as client:

        async def work(number: int) -> None:
            rng = random.Random(number)
            while time.perf_counter() < until:
                await ask(client, rng.choice(todo), rng.random() < 0.5, tally)

        killed, *_ = await asyncio.gather(
            kill(server, arguments.every, until), *[work(number) for number in range(arguments.clients)]
        )
    return tally, killed


def start(arguments: argparse.Namespace) -> tuple[subprocess.Popen[bytes], str]:
    """A server and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bagel.app.cli", "serve", "--port", str(port)]
    command += ["--replicas", str(arguments.replicas), "--model", arguments.model, "--device", arguments.device]
    if arguments.device == "cpu":
        command += ["--threads", "1"]
    with Path(arguments.log).open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 600
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/health").json().get("replicas") == arguments.replicas:
                return server, url
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    server.terminate()
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=10, help="seconds between two kills")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log", default=os.devnull, help="file for what the server says")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    todo = tasks(Bagel.load(arguments.model, device=arguments.device))
    server, url = start(arguments)
    try:
        tally, killed = asyncio.run(load(url, server.pid, todo, arguments))
    finally:
        server.terminate()
        code = server.wait(90)
    print(tally.table(killed))
    for what in tally.seen[:5]:
        print(what, file=sys.stderr)
    sys.exit(int(bool(tally.counts["wrong"] or tally.counts["unclean"] or code not in (0, signal.SIGTERM))))


if __name__ == "__main__":
    main()
