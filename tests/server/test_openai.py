"""The real `openai` client; each answer is that of its single run."""

from __future__ import annotations

import html
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from server.live import assert_same, data_url, opened, png

SMALL = {"num_timesteps": 5, "seed": 3}


def ask(client, text, **fields):
    return client.chat.completions.create(model="mini", messages=[{"role": "user", "content": text}], **fields)


def test_chat(client, bagel):
    found = ask(client, "What is a bagel?", max_tokens=12)
    alone = bagel.chat("What is a bagel?", max_tokens=12)
    assert found.choices[0].message.content == alone.text
    assert found.choices[0].finish_reason == "length"
    assert found.usage.completion_tokens == 12
    assert found.usage.prompt_tokens > 3


def test_chat_streamed(client, bagel):
    chunks = list(ask(client, "hello", max_tokens=16, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == bagel.chat("hello", max_tokens=16).text
    assert chunks[-1].usage.completion_tokens == 16
    assert chunks[-2].choices[0].finish_reason == "length"


def test_chat_sampled_with_a_seed(client, bagel):
    found = ask(client, "hello", max_tokens=12, temperature=1.5, seed=5, n=2)
    alone = [bagel.chat("hello", max_tokens=12, do_sample=True, temperature=1.5, seed=s).text for s in (5, 6)]
    assert [choice.message.content for choice in found.choices] == alone
    assert ask(client, "hello", max_tokens=6, temperature=0).choices[0].message.content == (
        bagel.chat("hello", max_tokens=6).text
    )


def test_chat_about_pictures_over_several_turns(client, bagel, pictures):
    image = {"type": "image_url", "image_url": {"url": data_url(pictures["wide"])}}
    messages = [
        {"role": "user", "content": [image, {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A picture."},
        {"role": "user", "content": "Of what?"},
    ]
    found = client.chat.completions.create(model="mini", messages=messages[:1], max_tokens=10)
    assert found.choices[0].message.content == bagel.chat([pictures["wide"], "What is this?"], max_tokens=10).text
    found = client.chat.completions.create(model="mini", messages=messages, max_tokens=10)
    with bagel.session() as session:
        session.read(pictures["wide"], latents=False)
        for text in ("What is this?", "A picture.", "Of what?"):
            session.read(text)
        assert found.choices[0].message.content == session.say(max_tokens=10).text


def test_chat_answers_with_pictures(client, bagel):
    fields = {**SMALL, "height": 32, "width": 48, "output": ["text", "image"]}
    found = ask(client, "a cube", max_tokens=6, modalities=["text", "image"], extra_body=fields)
    *_, end = bagel.stream(["a cube"], output=["text", "image"], max_tokens=6, height=32, width=48, **SMALL)
    said, drawn = found.choices[0].message.content
    assert said["text"] == end.result.text
    assert_same(opened(drawn["image_url"]["url"]), end.result.image)


def test_chat_streams_pictures_and_previews(client, bagel):
    fields = {**SMALL, "height": 32, "width": 32, "output": ["image"], "partial_images": 2}
    chunks = ask(client, "a cube", modalities=["text", "image"], stream=True, extra_body=fields)
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks]
    previews = [delta["preview"] for delta in deltas if delta.get("preview")]
    pictures = [part for delta in deltas for part in delta.get("images") or ()]
    assert (len(previews), len(pictures)) == (2, 1)
    assert_same(opened(pictures[0]["image_url"]["url"]), bagel.draw("a cube", height=32, width=32, **SMALL).image)


def test_generations(client, bagel):
    fields = {**SMALL, "cfg_renorm_type": "channel", "cfg_interval": [0.2, 1.0], "cfg_text_scale": 3.0}
    found = client.images.generate(model="mini", prompt="a cube", n=2, size="48x32", extra_body=fields)
    fields.pop("seed")
    for number, datum in enumerate(found.data):
        alone = bagel.draw("a cube", height=32, width=48, seed=3 + number, **fields).image
        assert_same(opened(datum.b64_json), alone)
        assert datum.seed == 3 + number


def test_generations_streamed_with_previews(client, bagel):
    events = list(
        client.images.generate(
            model="mini", prompt="a cube", size="32x32", stream=True, partial_images=2, extra_body=SMALL
        )
    )
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert_same(opened(events[-1].b64_json), bagel.draw("a cube", height=32, width=32, **SMALL).image)


def test_generations_with_noise_and_thought(client, bagel):
    noise = [[((7 * i + j) % 13 - 6) / 3 for j in range(64)] for i in range(4)]
    fields = {"num_timesteps": 4, "noise": noise, "think": True, "max_tokens": 6}
    found = client.images.generate(model="mini", prompt="a cube", size="32x32", extra_body=fields)
    alone = bagel.draw("a cube", height=32, width=32, **fields)
    assert_same(opened(found.data[0].b64_json), alone.image)
    assert found.data[0].revised_prompt == alone.text


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats(client, kind):
    found = client.images.generate(model="mini", prompt="a cube", size="32x32", output_format=kind, extra_body=SMALL)
    assert opened(found.data[0].b64_json).format == kind.upper()


def test_edits(client, bagel, pictures):
    files = [("a.png", png(pictures[name])) for name in ("wide", "tall")]
    one = client.images.edit(model="mini", image=files[0], prompt="make it red", extra_body=SMALL)
    assert_same(opened(one.data[0].b64_json), bagel.edit(pictures["wide"], "make it red", **SMALL).image)
    two = client.images.edit(
        model="mini", image=files, prompt="join them", extra_body={**SMALL, "cfg_interval": [0.5, 1.0]}
    )
    alone = bagel.edit([pictures["wide"], pictures["tall"]], "join them", cfg_interval=(0.5, 1.0), **SMALL).image
    assert_same(opened(two.data[0].b64_json), alone)


def test_edits_streamed_and_as_json(client, live, bagel, pictures):
    file = ("a.png", png(pictures["tall"]))
    events = list(
        client.images.edit(model="mini", image=file, prompt="red", stream=True, partial_images=1, extra_body=SMALL)
    )
    assert [event.type for event in events] == ["image_edit.partial_image", "image_edit.completed"]
    wanted = bagel.edit(pictures["tall"], "red", **SMALL).image
    assert_same(opened(events[-1].b64_json), wanted)
    body = {"prompt": "red", "image": data_url(pictures["tall"]), **SMALL}
    assert_same(opened(live.post("/v1/images/edits", json=body).json()["data"][0]["b64_json"]), wanted)


def test_many_at_once_each_as_alone(client, live, bagel, pictures):
    def chat(i):
        return ask(client, f"question {i}", max_tokens=6 + i % 5).choices[0].message.content

    def draw(i):
        fields = {"num_timesteps": 4 + i % 3, "seed": i, "cfg_renorm_type": ["global", "channel"][i % 2]}
        found = client.images.generate(
            model="mini", prompt=f"cube {i}", size=f"{32 + 16 * (i % 3)}x32", extra_body=fields
        )
        return opened(found.data[0].b64_json), fields

    passes, occupancy = live.metric("bagel_passes_total"), live.metric("bagel_pass_jobs_total")
    with ThreadPoolExecutor(16) as pool:
        texts, drawn = list(pool.map(chat, range(12))), []
        jobs = [pool.submit(draw, i) for i in range(8)] + [pool.submit(chat, i) for i in range(8)]
        drawn = [job.result() for job in jobs[:8]]
        texts += [job.result() for job in jobs[8:]]
    for i, text in zip([*range(12), *range(8)], texts, strict=True):
        assert text == bagel.chat(f"question {i}", max_tokens=6 + i % 5).text
    for i, (image, fields) in enumerate(drawn):
        assert_same(image, bagel.draw(f"cube {i}", height=32, width=32 + 16 * (i % 3), **fields).image)
    occupancy = live.metric("bagel_pass_jobs_total") - occupancy
    assert occupancy / (live.metric("bagel_passes_total") - passes) > 1.2


def test_models(client):
    assert [model.id for model in client.models.list()] == ["mini"]
    assert client.models.retrieve("mini").owned_by == "bagel"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        client.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.BadRequestError, match="base64"):
        client.chat.completions.create(
            model="mini",
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,~~~"}}]}
            ],
        )


def test_the_guide_is_a_page_of_its_own(live):
    for path in ("/", "/docs"):
        found = httpx.get(live.url + path)
        assert found.status_code == 200
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert "<script" not in found.text
        assert not re.findall(r"(?:src|href)=.https?://|url\(|@import", found.text)
    shown = html.unescape(httpx.get(f"{live.url}/docs").text)
    for told in ("POST</b> /v1/images/edits", "cfg_text_scale", "multipart/form-data", f"{live.url}/v1", "429"):
        assert told in shown
    assert "/docs" not in httpx.get(f"{live.url}/openapi.json").json()["paths"]


def test_a_misspelt_option_is_told_the_right_one(client):
    with pytest.raises(openai.BadRequestError, match="did you mean cfg_text_scale"):
        ask(client, "hello", extra_body={"cfg_txt_scale": 3})


def test_a_marker_is_no_text(client, monkeypatch, served):
    """A model that would rather draw writes the marker of a picture."""
    cls = type(served.runtime.checkpoint.tokenizer)
    decode = cls.decode
    monkeypatch.setattr(cls, "decode", lambda self, ids: "<|vision_start|>" + decode(self, ids))
    said = ask(client, "hello", max_tokens=6).choices[0].message.content
    chunks = list(ask(client, "hello", max_tokens=6, stream=True))
    assert said
    assert said == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "<|" not in said
