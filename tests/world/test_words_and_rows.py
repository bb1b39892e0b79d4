"""The wording tables, the export rows, the contact sheet."""

import base64
import io
import json
import re
from random import Random

import pytest
from PIL import Image

from bagel.world import TASKS, contact_sheet, make
from bagel.world.rows import conversation_row, edit_row, interleaved_row, text_to_image_row, write_shards
from bagel.world.wording.grammar import TABLES, Words, expand
from bagel.world.wording.lexicon import LEXICONS


def slots(template: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", template))


def test_both_languages_have_the_same_keys_and_names():
    assert set(TABLES["en"]) == set(TABLES["zh"])
    for vocabulary in LEXICONS["en"]:
        assert set(LEXICONS["en"][vocabulary]) == set(LEXICONS["zh"][vocabulary])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_templates_of_a_key_fill_from_the_same_slots(language):
    for key in TABLES[language]:
        allowed = set().union(*(slots(text) for table in TABLES.values() for pool in table[key] for text in pool))
        train, new = TABLES[language][key]
        assert train
        assert not set(train) & set(new)
        assert all(slots(text) <= allowed for text in train + new)


def test_alternatives_nest():
    seen = {expand("[a|b[c|d]] e[|!]", Random(k)) for k in range(60)}
    assert seen == {"a e", "a e!", "bc e", "bc e!", "bd e", "bd e!"}


def test_phrases():
    words = Words(Random(1), "en", False)
    assert words.a("arrow", "orange").startswith("an orange arrow")
    assert words.many("cross", "red") in ("red crosses", "red plus signs")
    assert Words(Random(1), "zh", False).some(3, "heart", "red") in ("三个红色的心形", "3个红色的心形", "3个红色心形")


def test_held_out_templates_are_used_only_on_demand():
    for new in (False, True):
        words = Words(Random(0), "en", new)
        words.say("remove", thing="it")
        assert {combo[-1] for combo in words.used} == {"new" if new else "train"}


def picture_of(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_rows_of_the_common_forms():
    drawn = text_to_image_row(make("draw", "colours", 0, 0))
    assert picture_of(drawn["image"]).size == (128, 128)
    assert list(json.loads(drawn["captions"])) == ["caption"]
    edited = edit_row(make("edit", "remove", 0, 0))
    assert len(edited["image_list"]) == 2
    assert len(edited["instruction_list"]) == 1
    asked = conversation_row(make("ask", "count", 0, 0))
    assert [turn["from"] for turn in asked["conversations"]] == ["human", "gpt"]
    assert "<image>" in asked["conversations"][0]["value"]


def test_a_talk_is_a_row_of_turns_with_or_without_a_picture():
    talk = conversation_row(make("ask", "dialogue", 0, 0))
    turns = [turn["from"] for turn in talk["conversations"]]
    assert turns == ["human", "gpt"] * (len(turns) // 2)
    assert len(turns) >= 4
    assert sum("<image>" in turn["value"] for turn in talk["conversations"]) == 1
    assert "image" not in conversation_row(make("ask", "no picture", 0, 0))


def test_an_interleaved_row_says_what_has_loss():
    row = interleaved_row(make("think", "sum", 0, 0))
    assert [(part["kind"], part["loss"]) for part in row["parts"]] == [("text", False), ("text", True), ("image", True)]
    assert row["parts"][1]["text"].startswith("<think>")


def test_shards(tmp_path):
    made = [make("ask", "colour", 0, index) for index in range(5)]
    paths = write_shards(made, tmp_path / "shards", per_shard=2)
    assert [path.name for path in paths] == [f"world-{k:05}.jsonl" for k in range(3)]
    row = json.loads(paths[0].read_text("utf-8").splitlines()[0])
    image = next(part for part in row["parts"] if part["kind"] == "image")
    assert picture_of(base64.b64decode(image["image"])).size == (128, 128)


def test_a_sheet_shows_every_task():
    made = [make(task, next(iter(categories)), 0, 0) for task, categories in TASKS.items()]
    sheet = contact_sheet(made, columns=4)
    assert sheet.width > 4 * 256
    assert sheet.height > 256
