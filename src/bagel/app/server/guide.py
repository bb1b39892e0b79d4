"""`GET /docs`: the document of the routes as a plain page, without scripts and without anything from elsewhere."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
code, pre { font: .9em ui-monospace, Consolas, monospace; background: #f4f4f2; border-radius: 4px; }
code { padding: 1px 4px; } pre { padding: .7rem 1rem; overflow-x: auto; }
h2 { margin-top: 2.5rem; border-top: 1px solid #ddd; padding-top: 1rem; } h2 b { color: #c2410c; }
table { border-collapse: collapse; width: 100%; font-size: .92em; }
td, th { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid #e5e5e5; }
summary { cursor: pointer; }
"""
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"}

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "What do you see?"}]},
    "/v1/images/generations": {"prompt": "a red square on a white background", "seed": 7},
    "/v1/images/edits": {"image": "data:image/png;base64,...", "prompt": "make the square blue"},
}


def page(document: Mapping[str, Any], address: str) -> str:
    """The page for an OpenAPI document. address: of this server, for the examples."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    parts = [
        f"<h1>{_text(title)}</h1><p>OpenAI's routes; any of its clients will do, with <code>base_url</code> "
        f"<code>{_text(address)}/v1</code>. Every option of drawing and writing is taken under its own name. "
        'For programs this page is at <a href="/openapi.json">/openapi.json</a>.</p>'
    ]
    schemas = document["components"]["schemas"]
    for path, methods in sorted(document["paths"].items(), key=lambda item: item[0] not in BODIES):
        for method, route in methods.items():
            parts += _route(path, method, route, schemas, address)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{_text(title)}</title>'
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>'
    )


def _route(path: str, method: str, route: Mapping[str, Any], schemas: Mapping[str, Any], address: str) -> Iterator[str]:
    yield f"<h2><b>{method.upper()}</b> {_text(path)}</h2><p>{_text(route.get('description', ''))}</p>"
    if path in BODIES:
        body = json.dumps(BODIES[path])
        yield (
            f"<pre>{_text(f'curl {address}{path} -H')} &quot;Content-Type: application/json&quot; "
            f"-d {_text(chr(39) + body + chr(39))}</pre>"
        )
    for kind, content in route.get("requestBody", {}).get("content", {}).items():
        schema = schemas[content["schema"]["$ref"].rpartition("/")[2]]
        yield f"<details open><summary>Body, <code>{_text(kind)}</code></summary>{_fields(schema)}</details>"
    rows = "".join(
        f"<tr><td>{status}</td><td>{_text(told['description'])}</td></tr>"
        for status, told in route.get("responses", {}).items()
        if status.isdigit() and status not in ("200", "422")
    )
    if rows:
        yield f"<details><summary>Errors</summary><table>{rows}</table></details>"


def _fields(schema: Mapping[str, Any]) -> str:
    needed = schema.get("required", ())
    rows = [
        f"<tr><td><code>{_text(name)}</code></td><td>{_text(_kind(field))}{', needed' if name in needed else ''}</td>"
        f"<td>{_text(field.get('description', ''))}</td></tr>"
        for name, field in schema["properties"].items()
    ]
    return f"<table><tr><th>Field</th><th>Type</th><th>What</th></tr>{''.join(rows)}</table>"


def _kind(field: Mapping[str, Any]) -> str:
    """A type as people say it; that null may stand for leaving it out goes without saying."""
    if "anyOf" in field:
        kinds = [_kind(one) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field or "const" in field:
        return " | ".join(map(str, field.get("enum") or [field["const"]]))
    if "$ref" in field:
        return str(field["$ref"].rpartition("/")[2])
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(field['items'])}" if "items" in field else "list"
    low, high = field.get("minimum"), field.get("maximum")
    limits = [f"from {low}"] * (low is not None) + [f"to {high}"] * (high is not None)
    return " ".join([kind, *limits])


def _text(text: Any) -> str:
    return html.escape(str(text))
