"""What visitors can be told that went wrong, in Chinese.

The keys are the sentences as the source has them, with {} for each value; a test compares the two, so that no
sentence is forgotten.
"""

from __future__ import annotations

import re
from functools import lru_cache

from bagel.app.ui.knob_texts import KNOB_NAMES

ROOMS = (
    "options.py",
    "images.py",
    "infer/conversation.py",
    "infer/engine.py",
    "infer/inputs.py",
    "infer/jobs.py",
    "infer/scheduler.py",
    "memory/recover.py",
    "memory/room.py",
    "app/show.py",
    "app/worker.py",
    "app/ui/history.py",
)
"""Where those sentences are written."""

SENTENCES: dict[str, str] = {
    # options
    "{} is {}; it must be a {}number.": "{0}是 {1}，应为{2}数字。",
    "{} is {}; it must be at least {}.": "{0}是 {1}，至少应为 {2}。",
    "{} is {}; it must be at most {}.": "{0}是 {1}，最多为 {2}。",
    "{} is {}; it must be above {}.": "{0}是 {1}，应大于 {2}。",
    "{} is {}; it must be true or false.": "{0}是 {1}，应为真或假。",
    "{} is {}; use one of {}.": "{0}是 {1}，请从 {2} 中选一个。",
    "cfg_interval is ({}, {}); it must lie within 0 and 1, the lower end first (1 is noise).": (
        "引导区间是 ({0}, {1})，应在 0 和 1 之间，低的一端在前（1 是噪声）。"
    ),
    "cfg_interval is {}; it must be two numbers, low and high.": "引导区间是 {0}，应为低、高两个数。",
    "options are of type {}; this job takes {}.": "选项的类型是 {0}，这里需要 {1}。",
    "there is no option {}; {}": "没有 {0} 这个选项（{1}）",
    # pictures
    "{} has {} pixels; at most {} million are decoded. Scale it down first.": (
        "{0} 有 {1} 像素，最多读 {2} 百万像素，请先缩小。"
    ),
    "a picture is of type {}; give a path, a PIL picture or the bytes of a file.": "图片的类型是 {0}，这里读不了。",
    "{} is empty (0 bytes); save the picture again.": "{0} 是空文件，请重新保存图片。",
    "{} has no pixels ({} x {}).": "{0} 没有像素（{1} x {2}）。",
    "{}: {}; check the path of the picture.": "{0} 打不开（{1}），请重新放图片。",
    "{} does not fit into memory; scale it down first.": "{0} 太大，内存放不下，请先缩小。",
    "{} is not a picture that can be read; use PNG, JPEG or WebP.": "{0} 不是能读的图片，请用 PNG、JPEG 或 WebP。",
    "{} is damaged ({}); save the picture again.": "{0} 已损坏（{1}），请重新保存图片。",
    "{} cannot be read as a picture ({}).": "{0} 不能作为图片读取（{1}）。",
    # inputs
    "an input is of type {}; give text, a PIL picture, a path or the bytes of a picture's file.": (
        "输入的类型是 {0}，应为文字或图片。"
    ),
    "there is nothing to answer; give a question, or pictures and a question.": "请先写一个问题，也可以放图片。",
    "the prompt is of type {}; it must be a string.": "提示词的类型是 {0}，应为文字。",
    "the prompt is empty; say what to draw, change or answer.": "还没有写内容，请说说要画什么、改什么或问什么。",
    "the prompt is no valid Unicode ({} at {}); type it again.": "文字里有无效的字符（{0}，第 {1} 个），请重新输入。",
    "{} is {}; it must be a multiple of {}, {} for one.": "{0}是 {1}，应为 {2} 的倍数，例如 {3}。",
    "{} is {}; the model's position table ends at {} (max_latent_size {}). Draw a smaller picture.": (
        "{0}是 {1}，这个模型最多画到 {2}（max_latent_size {3}），请画小一点。"
    ),
    "max_images is {}; it must be a whole number, 0 or more.": "图片数是 {0}，应为不小于 0 的整数。",
    'the output parts are {}; give a list of "text" and "image".': "输出部分是 {0}，应由 text 和 image 组成。",
    'output part {} is unknown; use "text" or "image".': "不认识输出部分 {0}，请用 text 或 image。",
    "height and width are not given, and there is no picture to take them from.": "没有高和宽，也没有图片可参照。",
    "noise is {}; a picture of {} x {} needs {}.": "噪声的形状是 {0}，{1} x {2} 的图片需要 {3}。",
    "noise holds numbers that are not finite; draw it from a normal distribution.": "噪声里有无穷大或无效的数。",
    "noise is not numbers ({}); give float32 {}.": "噪声不是数字（{0}），应为 float32 {1}。",
    # room
    "max_tokens is {}, but of the model's {} positions only {} are left; ask for fewer tokens or shorten the input.": (
        "最多词元是 {0}，但模型的 {1} 个位置只剩 {2} 个；请少写一些，或缩短输入。"
    ),
    "the context would need {} positions, the model knows {} (max_position_embeddings); shorten the text or begin a "
    "new session.": "内容需要 {0} 个位置，模型只有 {1} 个；请缩短文字，或开始新对话。",
    "the request needs {} of memory besides the weights{}, but {} are free: {}. Ask for a smaller picture, fewer at "
    "once or a shorter text, or load the model in fewer bits or with offload.": (
        "除权重外，这个任务还需要 {0} 内存{1}，但只剩 {2}（{3}）。请画小一点、少几张、缩短文字，或降低载入精度。"
    ),
    "the device ran out of memory during this request ({}); its memory was given back and other requests go on. "
    "Something else may use the device; else ask for a smaller picture, fewer at once or a shorter text.": (
        "这个任务用尽了内存（{0}），内存已收回，其他任务不受影响。可能有别的程序在用这块设备；否则请画小一点、少几张或缩短文字。"
    ),
    "{} requests wait already, and no more can; try again later.": "已有 {0} 个任务在排队，排不下了，请稍后再试。",
    "{} jobs are under way or waiting, and no more can; try again later.": (
        "已有 {0} 个任务在进行或排队，排不下了，请稍后再试。"
    ),
    "the server is stopping; try again in a moment.": "程序正在停止，请稍后再试。",
    # files
    "{} has no picture suffix that can be written; use {}.": "{0} 的后缀不能写成图片，请用 {1}。",
    "{} is a folder; give the name of a file.": "{0} 是文件夹，请给出文件名。",
    "{} cannot be written to ({}); choose another folder.": "{0} 不能写入（{1}），请换一个文件夹。",
    "{} could not be written ({}); free some disk or choose another place.": "{0} 写不下去（{1}），请腾出磁盘空间。",
}
VALUES: dict[str, str] = {
    "whole ": "整数",
    " beside {} of what runs already": "（其他任务还占着 {0}）",
    "{} tokens to read": "要读 {0} 个词元",
    "a picture of {} x {} in {} branches": "一张 {0} x {1} 的图、{2} 个分支",
    "up to {} tokens to write": "最多写 {0} 个词元",
    "too many": "太多",
    "the picture": "图片",
}
"""Words that may stand for a value."""


def in_chinese(text: str) -> str:
    """A sentence in Chinese; one that is not in the table is left in English, behind a Chinese word on it."""
    for sentence, chinese in SENTENCES.items():
        if match := _pattern(sentence).fullmatch(text):
            return chinese.format(*map(_value, match.groups())).replace("整数数字", "整数")
    return f"出错了：{text}"


def _value(text: str) -> str:
    if text in KNOB_NAMES:
        return KNOB_NAMES[text][1]
    return "、".join(map(_word, text.split(", "))) if ", " in text else _word(text)


def _word(text: str) -> str:
    for word, chinese in VALUES.items():
        if match := _pattern(word).fullmatch(text):
            return chinese.format(*match.groups())
    return text


@lru_cache(maxsize=256)
def _pattern(sentence: str) -> re.Pattern[str]:
    return re.compile(re.escape(sentence).replace(r"\{\}", "(.*?)"), re.DOTALL)
