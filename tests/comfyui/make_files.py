"""Makes what lies ready in the node pack: example workflows, as ComfyUI shows them and as its API takes them, and the
nodes' Chinese texts. `python -m comfyui.make_files`, from `tests`.

A workflow is written once, below: nodes with their inputs, a link as (node, output).
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagel.app.ui.knob_texts import CHINESE, KNOB_NAMES
from comfyui.chinese import INPUTS, NODES, OUTPUTS
from comfyui.fake import CORE, PACK, Comfy, installed

Link = tuple[str, int]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN"}


@dataclass(frozen=True)
class Node:
    """at: its column and its place in pixels from the top; size: width and height in pixels."""

    kind: str
    at: tuple[int, int]
    size: tuple[int, int]
    inputs: dict[str, Any]


DRAW_EDIT_ASK = {
    "model": Node("BagelMotLoad", (0, 0), (320, 220), {}),
    "drawing": Node("BagelMotDrawKnobs", (0, 270), (320, 380), {}),
    "editing": Node("BagelMotEditKnobs", (0, 700), (320, 380), {}),
    "draw": Node(
        "BagelMotDraw",
        (1, 0),
        (360, 320),
        {"model": ("model", 0), "knobs": ("drawing", 0), "prompt": "Draw a red star.", "seed": 7},
    ),
    "drawn": Node("SaveImage", (2, 0), (320, 320), {"images": ("draw", 0), "filename_prefix": "bagel/drawn"}),
    "edit": Node(
        "BagelMotEdit",
        (1, 580),
        (360, 360),
        {
            "model": ("model", 0),
            "image": ("draw", 0),
            "knobs": ("editing", 0),
            "instruction": "Make the star blue.",
            "seed": 7,
        },
    ),
    "edited": Node("SaveImage", (2, 580), (320, 320), {"images": ("edit", 0), "filename_prefix": "bagel/edited"}),
    "ask": Node(
        "BagelMotAsk",
        (1, 1200),
        (360, 380),
        {"model": ("model", 0), "image": ("edit", 0), "question": "What colour is the star?"},
    ),
    "answer": Node("PreviewAny", (2, 1200), (320, 200), {"source": ("ask", 0)}),
}
CONVERSATION = {
    "model": Node("BagelMotLoad", (0, 0), (320, 220), {}),
    "talk": Node("BagelMotTalk", (0, 270), (320, 60), {"model": ("model", 0)}),
    "draw": Node(
        "BagelMotTalkDraw",
        (1, 0),
        (360, 300),
        {"conversation": ("talk", 0), "message": "A red square on a white background.", "seed": 3},
    ),
    "drawn": Node("SaveImage", (1, 570), (360, 320), {"images": ("draw", 1), "filename_prefix": "bagel/square"}),
    "say": Node(
        "BagelMotTalkSay",
        (2, 0),
        (360, 300),
        {"conversation": ("draw", 0), "message": "In which colour is the square?"},
    ),
    "answer": Node("PreviewAny", (3, 0), (320, 200), {"source": ("say", 1)}),
    "repaint": Node(
        "BagelMotTalkDraw",
        (2, 360),
        (360, 300),
        {"conversation": ("say", 0), "message": "Make the square blue.", "seed": 4},
    ),
    "blue": Node("SaveImage", (3, 360), (320, 320), {"images": ("repaint", 1), "filename_prefix": "bagel/blue"}),
    "again": Node(
        "BagelMotTalkDraw",
        (2, 930),
        (360, 300),
        {"conversation": ("say", 0), "message": "Make the square green.", "seed": 4},
    ),
    "green": Node("SaveImage", (3, 930), (320, 320), {"images": ("again", 1), "filename_prefix": "bagel/green"}),
}
WORKFLOWS = {"draw_edit_ask": DRAW_EDIT_ASK, "conversation": CONVERSATION}
COLUMN = 420


def workflow_keys(name: str) -> dict[str, str]:
    """The numbers that a workflow's nodes have in its files."""
    return {key: str(index) for index, key in enumerate(WORKFLOWS[name], 1)}


def declared_of(comfy: Comfy, kind: str) -> dict[str, Any]:
    kinds = {**comfy.nodes, **CORE}[kind].INPUT_TYPES()  # type: ignore[attr-defined]
    return {**kinds["required"], **kinds.get("optional", {})}


def is_widget(declared: Any) -> bool:
    return isinstance(declared[0], list) or declared[0] in WIDGETS


def values_of(comfy: Comfy, node: Node) -> dict[str, Any]:
    """Every widget's value and every link, in the order of the node's inputs."""
    found = {}
    for name, declared in declared_of(comfy, node.kind).items():
        if name in node.inputs:
            found[name] = node.inputs[name]
        elif is_widget(declared):
            found[name] = declared[1]["default"]
    assert set(node.inputs) <= set(found), node
    return found


def api_of(comfy: Comfy, workflow: dict[str, Node]) -> dict[str, Any]:
    """The API format."""
    number = {key: str(index) for index, key in enumerate(workflow, 1)}
    names = {"SaveImage": "Save Image", "PreviewAny": "Preview as Text", **comfy.names}

    def plain(value: Any) -> Any:
        return [number[value[0]], value[1]] if isinstance(value, tuple) else value

    return {
        number[key]: {
            "inputs": {name: plain(value) for name, value in values_of(comfy, node).items()},
            "class_type": node.kind,
            "_meta": {"title": names[node.kind]},
        }
        for key, node in workflow.items()
    }


def page_of(comfy: Comfy, workflow: dict[str, Node]) -> dict[str, Any]:
    """The format of the page, version 0.4: nodes with places, links, and widgets by their order."""
    classes: dict[str, Any] = {**comfy.nodes, **CORE}
    number = {key: index for index, key in enumerate(workflow, 1)}
    links: list[list[Any]] = []
    inputs: dict[str, list[dict[str, Any]]] = {key: [] for key in workflow}
    for key, node in workflow.items():
        for name, declared in declared_of(comfy, node.kind).items():
            if is_widget(declared):
                continue
            source = node.inputs.get(name)
            slot = {"name": name, "type": declared[0], "link": len(links) + 1 if source else None}
            if source:
                links.append([slot["link"], number[source[0]], source[1], number[key], len(inputs[key]), declared[0]])
            inputs[key].append(slot)
    return {
        "last_node_id": len(workflow),
        "last_link_id": len(links),
        "nodes": [
            {
                "id": number[key],
                "type": node.kind,
                "pos": [COLUMN * node.at[0], node.at[1]],
                "size": list(node.size),
                "flags": {},
                "order": number[key] - 1,
                "mode": 0,
                "inputs": inputs[key],
                "outputs": [
                    {
                        "name": name,
                        "type": kind,
                        "links": [link[0] for link in links if link[1:3] == [number[key], slot]],
                    }
                    for slot, (name, kind) in enumerate(outputs_of(classes[node.kind]))
                ],
                "properties": {"Node name for S&R": node.kind},
                "widgets_values": widgets_of(comfy, node),
            }
            for key, node in workflow.items()
        ],
        "links": links,
        "groups": [],
        "config": {},
        "extra": {},
        "version": 0.4,
    }


def outputs_of(cls: Any) -> list[tuple[str, str]]:
    return list(zip(getattr(cls, "RETURN_NAMES", ()), cls.RETURN_TYPES, strict=True))


def widgets_of(comfy: Comfy, node: Node) -> list[Any]:
    """In the order of the inputs; behind a seed, what becomes of it after a run."""
    declared, found = declared_of(comfy, node.kind), []
    for name, value in values_of(comfy, node).items():
        if is_widget(declared[name]):
            found.append(value)
            if declared[name][1].get("control_after_generate"):
                found.append("fixed")
    return found


def chinese_of(comfy: Comfy) -> dict[str, Any]:
    """locales/zh/nodeDefs.json: names and explanations of nodes, inputs and outputs."""
    found: dict[str, Any] = {}
    for key, cls in comfy.nodes.items():
        name, description = NODES[key]
        inputs = {}
        for one in declared_of(comfy, key):
            stem = one.removesuffix("_from").removesuffix("_to") if one.startswith("cfg_interval") else one
            end = {"_from": "（从）", "_to": "（到）"}.get(one.removeprefix(stem), "")
            label, tip = INPUTS[stem] if stem in INPUTS else (KNOB_NAMES[stem][1], CHINESE[stem])
            inputs[one] = {"name": label + end, "tooltip": tip}
        outputs = {str(n): {"name": OUTPUTS[name]} for n, name in enumerate(cls.RETURN_NAMES)}  # type: ignore[attr-defined]
        found[key] = {"display_name": name, "description": description, "inputs": inputs, "outputs": outputs}
    return found


def files(comfy: Comfy) -> dict[Path, str]:
    """Every file and what it is to hold."""
    found: dict[Path, Any] = {PACK / "locales" / "zh" / "nodeDefs.json": chinese_of(comfy)}
    for name, workflow in WORKFLOWS.items():
        found[PACK / "example_workflows" / f"{name}.json"] = page_of(comfy, workflow)
        found[PACK / "api" / f"{name}.json"] = api_of(comfy, workflow)
    return {path: json.dumps(content, ensure_ascii=False, indent=1) + "\n" for path, content in found.items()}


def main() -> None:
    with tempfile.TemporaryDirectory() as models, installed(Path(models)) as comfy:
        for path, text in files(comfy).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
