"""Runs the example workflows in a real ComfyUI, with no browser, and checks what comes back:

    python main.py --cpu                                      (in ComfyUI, this pack in its custom_nodes)
    python tests/comfyui/against_comfyui.py [address]         (with ComfyUI's Python)

Progress, previews and text must arrive while the nodes run; nothing must run twice that was not changed; a cancelled
run must stop at once, and the next one must work.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
from PIL import Image

API = Path(__file__).parent.parent.parent / "integrations" / "comfyui" / "api"
TEXT, PREVIEWS = 3, (1, 4)
"""Kinds of ComfyUI's binary messages: a node's text, and previews with and without metadata."""
NODES = 13


class NodeError(Exception):
    """What ComfyUI shows of a node that failed."""


class Client:
    def __init__(self, address: str, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.address, self.http, self.socket = address, http, socket

    async def run(self, prompt: dict[str, Any], cancel_at: int | None = None) -> tuple[Counter[str], dict[str, Any]]:
        """-> how many messages came of each kind, and the history's entry. cancel_at: progress messages until it is
        cancelled; `after_cancel` then counts those that still came."""
        body = {"prompt": prompt, "client_id": "bagel"}
        async with self.http.post(f"{self.address}/prompt", json=body) as answer:
            queued = await answer.json()
            assert answer.status == 200, json.dumps(queued, indent=1)
        seen: Counter[str] = Counter()
        while True:
            message = await self.socket.receive(timeout=120)
            kind, data = read(message)
            seen[kind] += 1
            if kind == "progress" and seen["cancelled"]:
                seen["after_cancel"] += 1
            if cancel_at and seen["progress"] == cancel_at and not seen["cancelled"]:
                seen["cancelled"] += 1
                await self.http.post(f"{self.address}/interrupt")
            if kind in ("execution_success", "execution_error", "execution_interrupted"):
                break
        if kind == "execution_error":
            raise NodeError(f"{data['node_type']}: {data['exception_message'].strip()}")
        return seen, await self.history(queued["prompt_id"])

    async def error(self, prompt: dict[str, Any]) -> str:
        """What ComfyUI says of a run that has to fail."""
        try:
            await self.run(prompt)
        except NodeError as error:
            return str(error)
        return "nothing failed"

    async def history(self, prompt: str) -> dict[str, Any]:
        """It is written a moment after the last message."""
        for _ in range(100):
            async with self.http.get(f"{self.address}/history/{prompt}") as answer:
                if entry := (await answer.json()).get(prompt):
                    return entry
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{prompt} is not in the history.")

    async def picture(self, entry: dict[str, Any]) -> Image.Image:
        async with self.http.get(f"{self.address}/view", params=entry) as answer:
            return Image.open(io.BytesIO(await answer.read()))


def read(message: aiohttp.WSMessage) -> tuple[str, Any]:
    if message.type == aiohttp.WSMsgType.TEXT:
        said = json.loads(message.data)
        return said["type"], said["data"]
    kind = int.from_bytes(message.data[:4], "big")
    return "text" if kind == TEXT else "preview" if kind in PREVIEWS else f"binary {kind}", None


def workflow(name: str) -> dict[str, Any]:
    return json.loads((API / f"{name}.json").read_text(encoding="utf-8"))


def fresh(prompt: dict[str, Any]) -> dict[str, Any]:
    """The same with other seeds, so that nothing of an earlier run is used again."""
    for node in prompt.values():
        if "seed" in node["inputs"]:
            node["inputs"]["seed"] = time.time_ns() % 2**40
    return prompt


def every_other_node() -> dict[str, Any]:
    """Those that the examples do not have: a picture read and talked about, then drawn once more with the model
    unloaded in between."""
    knobs = workflow("draw_edit_ask")["2"]["inputs"]
    draw = {"model": ["1", 0], "prompt": "a cat", "seed": 1, "width": 64, "height": 64, "count": 2, "think": True}
    words = {"max_tokens": 8, "do_sample": True, "temperature": 0.5}
    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("BagelMotLoad", {"model": "mini", "precision": "int8", "offload": "", "device": "auto"}),
        "2": ("BagelMotDrawKnobs", {**knobs, "num_timesteps": 5, "max_tokens": 8}),
        "3": ("BagelMotDraw", {**draw, "knobs": ["2", 0]}),
        "4": ("BagelMotTalk", {"model": ["1", 0]}),
        "5": ("BagelMotTalkRead", {"conversation": ["4", 0], "message": "Two cats.", "image": ["3", 0]}),
        "6": ("PreviewAny", {"source": ["7", 2]}),
        "7": (
            "BagelMotTalkGoOn",
            {
                "conversation": ["5", 0],
                "message": "And then?",
                "seed": 1,
                "width": 0,
                "height": 0,
                "parts": "text",
                "max_images": 1,
                "text_knobs": ["9", 0],
            },
        ),
        "8": ("SaveImage", {"images": ["7", 1], "filename_prefix": "bagel/none"}),
        "9": ("BagelMotTextKnobs", words),
        "10": ("BagelMotUnload", {"model": ["1", 0], "after": ["7", 0]}),
        "11": (
            "BagelMotTalkDraw",
            {"conversation": ["10", 0], "message": "", "seed": 1, "width": 64, "height": 64, "think": False},
        ),
        "12": ("SaveImage", {"images": ["11", 1], "filename_prefix": "bagel/again"}),
    }
    nodes["11"][1]["knobs"] = ["2", 0]
    return {number: {"class_type": kind, "inputs": inputs} for number, (kind, inputs) in nodes.items()}


async def check(client: Client) -> None:
    async with client.http.get(f"{client.address}/object_info") as answer:
        found = [name for name in await answer.json() if name.startswith("BagelMot")]
    assert len(found) == NODES, found
    for name in ("draw_edit_ask", "conversation"):
        began = time.monotonic()
        seen, done = await client.run(fresh(workflow(name)))
        took = time.monotonic() - began
        assert seen["progress"], seen
        assert seen["preview"], seen
        assert seen["text"], seen
        pictures = [entry for out in done["outputs"].values() for entry in out.get("images", ())]
        sizes = [(await client.picture(entry)).size for entry in pictures]
        texts = [text for out in done["outputs"].values() for text in out.get("text", ())]
        assert pictures, done
        assert texts, done
        print(f"{name}: {took:.1f} s, pictures {sizes}, {len(texts)} texts; {report(seen)}")

    changed = fresh(workflow("draw_edit_ask"))
    await client.run(changed)
    changed["8"]["inputs"]["question"] = "What else?"
    seen, _ = await client.run(changed)
    assert not seen["preview"], "pictures that had not changed were made again"
    print(f"another question: {report(seen)}")

    seen, done = await client.run(fresh(every_other_node()))
    assert seen["execution_success"] == 1
    assert "8" not in done["outputs"], "a turn without pictures must block what saves them"
    assert done["outputs"]["6"]["text"][0]
    again = await client.picture(done["outputs"]["12"]["images"][0])
    assert again.size == (64, 64)
    print(f"the other nodes: {report(seen)}")

    wrong = workflow("draw_edit_ask")
    wrong["4"]["inputs"]["width"] = 4096
    said = await client.error(wrong)
    assert "Draw a smaller picture" in said, said
    print(f"an error: {said}")

    long = fresh(workflow("draw_edit_ask"))
    long["2"]["inputs"]["num_timesteps"] = 5000
    began = time.monotonic()
    seen, _ = await client.run(long, cancel_at=20)
    assert seen["execution_interrupted"] == 1, seen
    assert seen["after_cancel"] < 20, seen
    print(f"cancelled: {time.monotonic() - began:.1f} s; {report(seen)}")
    seen, _ = await client.run(fresh(workflow("draw_edit_ask")))
    assert seen["execution_success"] == 1
    print(f"after it: {report(seen)}")


def report(seen: Counter[str]) -> str:
    kinds = ("executing", "progress", "preview", "text", "after_cancel")
    return ", ".join(f"{seen[kind]} {kind}" for kind in kinds if seen[kind])


async def main(address: str) -> None:
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{address}/ws?clientId=bagel") as socket:
        await check(Client(address, http, socket))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8188"))
