"""Draws an example workflow from its own files, with what it makes: no ComfyUI and no browser are needed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from comfyui.fake import Comfy, installed, run
from comfyui.make_files import WORKFLOWS, api_of, declared_of, is_widget, page_of, values_of, workflow_keys

BACK, BODY, HEAD, FIELD, TEXT, DIM = "#181818", "#353535", "#2c2c2c", "#222222", "#dddddd", "#999999"
LINKS = {"IMAGE": "#64b5f6"}
OTHER = "#9aaa95"
ROW, TITLE, EDGE = 22, 30, 20


def workflow_picture(model: str, path: Path, name: str = "draw_edit_ask") -> None:
    """Runs a workflow with a model and draws it with the results."""
    workflow, keys = WORKFLOWS[name], workflow_keys(name)
    with tempfile.TemporaryDirectory() as models, installed(Path(models)) as comfy:
        prompt = api_of(comfy, workflow)
        load = next(node for node in prompt.values() if node["class_type"] == "BagelMotLoad")
        load["inputs"]["path"] = str(Path(model).absolute()) if Path(model).is_dir() else ""
        done = run(comfy, prompt)
        shown = {}
        for key, node in workflow.items():
            if node.kind == "SaveImage":
                shown[int(keys[key])] = _image(done[node_key(keys, node.inputs["images"])], node.inputs["images"][1])
            elif node.kind == "PreviewAny":
                source = node.inputs["source"]
                shown[int(keys[key])] = str(done[node_key(keys, source)][source[1]][0])
        _drawn(comfy, workflow, shown).save(path, optimize=True)


def node_key(keys: dict[str, str], link: Any) -> str:
    return keys[link[0]]


def _image(outputs: list[list[Any]], slot: int) -> Image.Image:
    pixels = outputs[slot][0][0]
    return Image.fromarray(np.asarray(pixels * 255).round().astype(np.uint8))


def _drawn(comfy: Comfy, workflow: dict[str, Any], shown: dict[int, Any]) -> Image.Image:
    page = page_of(comfy, workflow)
    nodes = {node["id"]: node for node in page["nodes"]}
    specs = dict(zip(nodes, workflow.values(), strict=True))
    size = [max(n["pos"][i] + n["size"][i] for n in nodes.values()) + 2 * EDGE for i in (0, 1)]
    sheet = Image.new("RGB", (size[0], size[1]), BACK)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for _, source, out, target, slot, kind in page["links"]:
        _link(pen, _port(nodes[source], out, True), _port(nodes[target], slot, False), LINKS.get(kind, OTHER))
    titles = {"SaveImage": "Save Image", "PreviewAny": "Preview as Text", **comfy.names}
    for number, node in nodes.items():
        _node(pen, font, node, titles[node["type"]])
        _widgets(pen, font, comfy, specs[number], node)
        if number in shown:
            _result(sheet, pen, font, node, shown[number])
    return sheet


def _port(node: dict[str, Any], slot: int, out: bool) -> tuple[int, int]:
    x, y = node["pos"][0] + EDGE, node["pos"][1] + EDGE
    return x + (node["size"][0] if out else 0), y + TITLE + ROW // 2 + ROW * slot


def _link(pen: ImageDraw.ImageDraw, start: tuple[int, int], end: tuple[int, int], colour: str) -> None:
    """A curve that leaves and arrives level."""
    bend = max(40, abs(end[0] - start[0]) // 2)
    points = []
    for step in range(41):
        t = step / 40
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        corners = (start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end)
        points.append(tuple(sum(w * c[i] for w, c in zip(weights, corners, strict=True)) for i in (0, 1)))
    pen.line(points, colour, 3, joint="curve")


def _node(pen: ImageDraw.ImageDraw, font: Any, node: dict[str, Any], title: str) -> None:
    x, y = node["pos"][0] + EDGE, node["pos"][1] + EDGE
    width, height = node["size"]
    pen.rounded_rectangle((x, y, x + width, y + height), 8, BODY)
    pen.rounded_rectangle((x, y, x + width, y + TITLE - 4), 8, HEAD)
    pen.text((x + 12, y + 13), title, TEXT, font, anchor="lm")
    for out, ports in ((False, node["inputs"]), (True, node["outputs"])):
        for slot, port in enumerate(ports):
            at = _port(node, slot, out)
            pen.circle(at, 5, LINKS.get(port["type"], OTHER))
            pen.text((at[0] + (-12 if out else 12), at[1]), port["name"], TEXT, font, anchor="rm" if out else "lm")


def _widgets(pen: ImageDraw.ImageDraw, font: Any, comfy: Comfy, spec: Any, node: dict[str, Any]) -> None:
    """Names and values, as many as the node has room for."""
    x, y = node["pos"][0] + EDGE, node["pos"][1] + EDGE
    top = y + TITLE + ROW * max(len(node["inputs"]), len(node["outputs"])) + 4
    declared = declared_of(comfy, spec.kind)
    for name, value in values_of(comfy, spec).items():
        if not is_widget(declared[name]) or top + ROW > y + node["size"][1]:
            continue
        options = declared[name][1] if len(declared[name]) > 1 else {}
        right = x + node["size"][0] - 12
        if options.get("multiline"):
            pen.rectangle((x + 12, top, right, top + 2 * ROW), FIELD)
            pen.text((x + 20, top + 12), str(value) or name, TEXT if value else DIM, font, anchor="lm")
            top += 2 * ROW + 6
            continue
        pen.rounded_rectangle((x + 12, top, right, top + ROW - 3), 9, FIELD)
        pen.text((x + 24, top + 9), name, DIM, font, anchor="lm")
        pen.text((right - 12, top + 9), str(value), TEXT, font, anchor="rm")
        top += ROW


def _result(sheet: Image.Image, pen: ImageDraw.ImageDraw, font: Any, node: dict[str, Any], found: Any) -> None:
    x, y = node["pos"][0] + EDGE, node["pos"][1] + EDGE + TITLE + 2 * ROW + 8
    width, height = node["size"][0] - 24, node["size"][1] - TITLE - 2 * ROW - 20
    if isinstance(found, str):
        pen.rectangle((x + 12, y, x + 12 + width, y + height), FIELD)
        pen.text((x + 20, y + 8), found, TEXT, font)
        return
    scale = min(width / found.width, height / found.height)
    large = found.resize((int(found.width * scale), int(found.height * scale)), Image.Resampling.NEAREST)
    sheet.paste(large, (x + 12 + (width - large.width) // 2, y))
