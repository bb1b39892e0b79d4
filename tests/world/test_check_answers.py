"""Answers in any of the usual words, in both languages."""

import pytest

from bagel.world.check import judge
from bagel.world.goals import AnswerGoal
from bagel.world.wording.reading import groups, named


@pytest.mark.parametrize(
    ("kind", "value", "good", "bad"),
    [
        ("yes", "yes", ["Yes.", "yes, there is", "是的。", "有。"], ["No.", "不是。", "没有", "", "yes and no"]),
        ("yes", "no", ["No.", "不是。", "没有。"], ["Yes", "是", "maybe"]),
        ("number", "3", ["3", "Three.", "There are three.", "三个", "3个。"], ["4", "two", "三个或四个", "thirty"]),
        ("number", "2", ["two", "两个", "二", "2"], ["十二个", "12"]),
        ("colour", "purple", ["violet", "It is purple.", "紫色", "紫"], ["pink", "red and purple", "红色"]),
        ("colour", "pink", ["pink", "粉红色"], ["red", "红色"]),
        ("shape", "diamond", ["a rhombus", "Diamonds", "菱形。"], ["square", "ring"]),
        ("relation", "left", ["Left.", "to the left of it", "左边", "在左侧"], ["right", "右边", "left or right"]),
        (
            "place",
            "top left",
            ["Top left.", "in the upper left corner", "左上角。"],
            ["top", "left", "左边", "top right"],
        ),
        ("place", "middle left", ["Left.", "on the left", "左侧。"], ["top left", "左下角", "right"]),
        ("place", "centre", ["In the middle.", "Centre.", "正中"], ["top", "下方"]),
        ("background", "sky", ["light blue", "浅蓝色"], ["white", "白色"]),
    ],
)
def test_short_answers(kind, value, good, bad):
    goal = AnswerGoal(kind, value)
    for text in good:
        assert judge(goal, text), text
    for text in bad:
        assert not judge(goal, text), text


@pytest.mark.parametrize(
    "text",
    [
        "Two red circles and a blue star.",
        "A blue star and two red discs on a white background.",
        "图中有一个蓝色的五角星和两个红色圆形。",
        "2个红色的圆形、一个蓝色星形。",
    ],
)
def test_captions_in_any_order(text):
    assert judge(AnswerGoal("caption", ((1, "blue", "star"), (2, "red", "circle"))), text)


def test_captions_that_are_wrong():
    goal = AnswerGoal("caption", ((1, "blue", "star"), (2, "red", "circle")))
    for text in ("A blue star.", "Two blue stars and a red circle.", "Two red circles, a blue star and a green ring."):
        assert not judge(goal, text)


def test_groups_read_counts_colours_shapes():
    assert groups("three small violet crosses and a ring") == [(3, "purple", "cross"), (1, "", "ring")]


def test_only_words_that_stand_together_describe_one_thing():
    assert groups("The arrow is green and the square is red.") == [(1, "", "arrow"), (1, "", "square")]
    assert groups("把两个圆形涂成蓝色,去掉红色的五角星") == [(2, "", "circle"), (1, "red", "star")]


def test_named_combinations():
    assert named("Two red circles and a star") == {
        ("look", "circle", "red"),
        ("count", 2, "circle"),
        ("pair", "circle", "star"),
    }
