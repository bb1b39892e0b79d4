"""`POST /v1/chat/completions`"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bagel.app.previews import Evenly, Preview, with_previews
from bagel.app.server.images import check_options, presets_within
from bagel.app.server.inputs import check_letters, picture_input, read_json, text_input
from bagel.app.server.problems import ApiError, answer
from bagel.app.server.protocol import ChatRequest, Message
from bagel.app.server.protocol import TextPiece as TextContent
from bagel.app.server.service import Service, check_count, encoded
from bagel.app.server.turns import Chat, Turn
from bagel.app.worker import weight_of
from bagel.infer.conversation import Input
from bagel.infer.engine import Finished
from bagel.infer.inputs import split_fields
from bagel.infer.jobs import Plan
from bagel.infer.result import ImageDone, Result, TextDone
from bagel.infer.text import TextPiece, unmarked
from bagel.options import TextOptions, make, need, settle


async def completions(request: Request, service: Service) -> Response:
    asked = await read_json(request, ChatRequest)
    name = service.check_model(asked.model)
    check_count("n", asked.n, service.settings.n)
    turns = await _turns(asked, service)
    chats = [_chat(asked, turns, service, number) for number in range(asked.n)]
    runtime = service.bagel.runtime
    todo = [chat.job(runtime) for chat in chats]
    if asked.stream and asked.partial_images:
        todo = [with_previews(runtime, job, Evenly(asked.partial_images)) for job in todo]
    wants = (TextPiece, TextDone, ImageDone, Preview) if asked.stream else ()
    items = [item for turn in turns for item in turn.items]
    weight = weight_of(items, chats[0].image, chats[0].text)
    handle = service.begin(request, todo, weight, wants)
    base = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": name}
    if asked.stream:
        events = service.events(request, handle)
        return service.stream(_chunks(events, asked, chats, {**base, "object": "chat.completion.chunk"}))
    results = await service.results(request, handle)
    choices = [await _choice(index, found, chats[index]) for index, found in enumerate(results)]
    usage = _usage(chats, results)
    return answer({**base, "object": "chat.completion", "choices": choices, "usage": usage})


async def _turns(asked: ChatRequest, service: Service) -> list[Turn]:
    if sum(len(m.content) for m in asked.messages if isinstance(m.content, list)) > 4 * service.settings.pictures:
        raise ApiError(413, "the messages have too many parts; send fewer.", "too_many_parts")
    addresses = [p for m in asked.messages if isinstance(m.content, list) for p in m.content if p.type == "image_url"]
    if len(addresses) > service.settings.pictures:
        text = f"{len(addresses)} pictures were sent; at most {service.settings.pictures} are read."
        raise ApiError(413, text, "too_many_images", param="messages")
    texts = [m.content for m in asked.messages if isinstance(m.content, str)]
    texts += [p.text for m in asked.messages if isinstance(m.content, list) for p in m.content if p.type == "text"]
    check_letters(sum(map(len, texts)), service.settings)
    turns = [Turn(await _items(message, service), message.role != "user") for message in asked.messages]
    if not any(turn.items for turn in turns):
        raise ApiError(400, "the messages are empty; say something.", "invalid_value", param="messages")
    return turns


async def _items(message: Message, service: Service) -> list[Input]:
    if isinstance(message.content, str):
        return [text_input(message.content, service.settings)]
    items: list[Input] = []
    for part in message.content or ():
        if isinstance(part, TextContent):
            items.append(text_input(part.text, service.settings))
        else:
            items.append(await picture_input(service.bagel.runtime, part.image_url.url, service.settings))
    return items


def _chat(asked: ChatRequest, turns: list[Turn], service: Service, number: int) -> Chat:
    """The number-th of the n answers; their seeds are one apart."""
    fields, presets = _fields(asked), presets_within(service)
    if asked.n > 1 and "seed" in fields:
        fields["seed"] += number
    if asked.modalities is None or "image" not in asked.modalities:
        wrong = [name for name in fields if name not in TextOptions.__dataclass_fields__]
        if wrong or (asked.output and "image" in asked.output):
            text = (
                f'{wrong[0] if wrong else "output"} is for pictures; ask for them with "modalities": ["text", "image"].'
            )
            raise ApiError(400, text, "invalid_value")
        text_options = settle(make(TextOptions, None, fields), "chat", presets)
        check_count("max_tokens", text_options.max_tokens, service.settings.tokens)
        return Chat(turns, text_options)
    image, text_options = split_fields(fields)
    sent = any(not isinstance(item, str) for turn in turns for item in turn.items)
    drawn = check_options(settle(image, "edit" if sent else "draw", presets), service)
    written = settle(text_options, "chat", presets)
    check_count("max_tokens", written.max_tokens, service.settings.tokens)
    parts = asked.output if asked.output is not None or "text" in asked.modalities else ["image"]
    return Chat(turns, written, drawn, Plan(parts, asked.max_images))


def _fields(asked: ChatRequest) -> dict[str, Any]:
    """Options by name. A temperature asks for sampling, 0 for none, as OpenAI's clients mean it."""
    fields = asked.options()
    if asked.max_completion_tokens is not None:
        fields["max_tokens"] = asked.max_completion_tokens
    if fields.get("temperature") == 0:
        del fields["temperature"]
        fields["do_sample"] = False
    elif "temperature" in fields:
        fields.setdefault("do_sample", True)
    return fields


# --- answers ---------------------------------------------------------------------------------------------


async def _choice(index: int, result: Result, chat: Chat) -> dict[str, Any]:
    text = unmarked(result.text or "")
    content: Any = text
    if chat.image is not None:
        content = [{"type": "text", "text": text}] if text else []
        content += [await _picture(image) for image in result.images]
    message = {"role": "assistant", "content": content, "refusal": None}
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _reason(result, chat)}


async def _picture(image: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{await encoded(image)}"}}


def _reason(result: Result, chat: Chat) -> str:
    full = chat.image is None and len(result.token_ids or ()) >= need(chat.text.max_tokens)
    return "length" if full else "stop"


def _usage(chats: list[Chat], results: list[Result]) -> dict[str, int]:
    read, written = chats[0].prompt_tokens, sum(result.stats.tokens for result in results)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


async def _chunks(
    events: AsyncIterator[tuple[int, Any]], asked: ChatRequest, chats: list[Chat], base: dict[str, Any]
) -> AsyncIterator[tuple[None, Any]]:
    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> tuple[None, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return None, {**base, "choices": [choice]}

    results: dict[int, Result] = {}
    for index in range(asked.n):
        yield chunk(index, {"role": "assistant", "content": ""})
    try:
        async for index, event in events:
            if isinstance(event, TextPiece):
                if text := unmarked(event.text):
                    yield chunk(index, {"content": text})
            elif isinstance(event, Preview):
                yield chunk(index, {"preview": await _picture(event.image)})
            elif isinstance(event, ImageDone):
                yield chunk(index, {"images": [await _picture(event.image)]})
            elif isinstance(event, Finished):
                results[index] = event.result
                yield chunk(index, {}, _reason(event.result, chats[index]))
    finally:
        await events.aclose()  # type: ignore[attr-defined]
    if asked.stream_options and asked.stream_options.include_usage:
        yield None, {**base, "choices": [], "usage": _usage(chats, list(results.values()))}
