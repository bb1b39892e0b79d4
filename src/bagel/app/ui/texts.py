"""What the page says, in English and Chinese. The knobs' words are in `knob_texts`."""

from __future__ import annotations

from typing import Any

from bagel.errors import InputError
from bagel.infer.text import unmarked

LANGUAGES = {"en": "English", "zh": "中文"}

TEXTS: dict[str, tuple[str, str]] = {
    "title": ("BAGEL: one model that draws, edits, answers and converses", "BAGEL：一个模型，画图、改图、看图、对话"),
    "language": ("Language", "语言"),
    "tab.draw": ("Draw", "画图"),
    "tab.edit": ("Edit", "改图"),
    "tab.chat": ("Understand", "看图问答"),
    "tab.talk": ("Converse", "对话"),
    "tab.history": ("History", "历史"),
    "prompt.draw": ("What to draw", "画什么"),
    "prompt.edit": ("What to change", "怎么改"),
    "prompt.chat": ("Question", "问题"),
    "prompt.talk": ("Message", "消息"),
    "hint.draw": ("Describe the picture; Enter draws it", "描述画面，按回车开始"),
    "hint.edit": ("Say what is to be different; Enter begins", "说说要改成什么样，按回车开始"),
    "hint.chat": ("Ask about the pictures, or anything; Enter sends", "就图片提问，也可以不放图片；按回车发送"),
    "hint.talk": (
        "Text, pictures, or both; Enter sends, Shift+Enter begins a line",
        "文字、图片或两者都有；回车发送，Shift+回车换行",
    ),
    "hint.nothing": ("Say something, or show a picture", "说点什么，或给一张图"),
    "go.draw": ("Draw", "开始画"),
    "go.edit": ("Edit", "开始改"),
    "go.chat": ("Ask", "提问"),
    "cancel": ("Cancel", "取消"),
    "pictures": ("Pictures, one or several", "图片，一张或几张"),
    "result": ("Result", "结果"),
    "compare": ("Before and after", "修改前后"),
    "thought": ("Thought", "思考"),
    "answer": ("Answer", "回答"),
    "preset": ("Preset", "预设"),
    "preset.info": ("Sets all knobs below; then turn them as you like", "一次设好下面所有旋钮，之后可再调"),
    "ratio": ("Shape", "画幅"),
    "like": ("like the picture", "跟原图一样"),
    "own": ("custom", "自定"),
    "count": ("Pictures at once", "一次几张"),
    "seed": ("Seed", "种子"),
    "seed.info": ("Empty: a new one each time", "留空：每次换一个"),
    "seed.reuse": ("Use last seed", "用上次的种子"),
    "preview": ("Live preview", "实时预览"),
    "knobs": ("Knobs", "旋钮"),
    "examples": ("Examples", "例子"),
    "to.edit": ("Edit this picture", "修改这张图"),
    "to.talk": ("Talk about this picture", "拿这张图对话"),
    "to.further": ("Edit the result further", "接着改这个结果"),
    "answer.none": ("The model ended without an answer.", "模型没有给出回答。"),
    "answer.picture": (
        "The model would draw here: ask for the picture under Draw, Edit or Converse.",
        "模型想在这里画图：请到“画图”“改图”或“对话”里要这张图。",
    ),
    "reply": ("Reply with", "回复形式"),
    "reply.text": ("text", "文字"),
    "reply.image": ("a picture", "图片"),
    "reply.both": ("both, as the model decides", "两者皆可，由模型决定"),
    "talk.empty": (
        "Send text and pictures, ask for an answer or a picture, then go on from what came out.",
        "发文字和图片，要一个回答或一张图，然后接着往下聊、往下改。",
    ),
    "talk.undo": ("Undo last turn", "撤回上一轮"),
    "talk.new": ("New conversation", "新对话"),
    "talk.shown": ("Pictures so far: click one to send it again", "出现过的图片：点一下可再次发送"),
    "history.shown": ("Pictures made, newest first", "做过的图片，新的在前"),
    "history.mine": ("Pictures of this visit, newest first", "这次做的图片，新的在前"),
    "history.from": ("Made from", "用到的图片"),
    "history.lost": (
        "Some of the pictures it was made from are not here ({count}); add them once more.",
        "有 {count} 张用到的图片不在这里，请再放一次。",
    ),
    "history.drop": ("Drop a PNG: its settings come back", "拖入 PNG，找回当时的设置"),
    "history.settings": ("Settings", "设置"),
    "history.use": ("Use these settings", "用这些设置"),
    "history.none": ("Choose a picture above, or drop a PNG.", "在上面选一张，或拖入一个 PNG。"),
    "history.foreign": (
        "This picture carries no settings of bagel; drop a PNG as it was saved here (other programs may strip them).",
        "这张图片里没有 bagel 的设置；请拖入这里保存的原始 PNG（别的程序可能会去掉设置）。",
    ),
    "history.again": ("Settings are back; add the pictures to edit once more.", "设置已恢复；要修改的图片请再放一次。"),
    "refresh": ("Refresh", "刷新"),
    "loading": ("Loading {model} ...", "正在载入 {model} ……"),
    "loading.part": ("Loading {model}: {done} of {total}", "正在载入 {model}：{done} / {total}"),
    "ready": ("{model} on {device}", "{model}，在 {device} 上"),
    "plain": ("{error}", "{error}"),
    "failed": ("The model could not be loaded: {error}", "模型载入失败：{error}"),
    "loading.wait": ("The model is still being loaded ...", "模型还在载入……"),
    "waiting": ("Waiting: {ahead} before this one", "排队中：前面还有 {ahead} 个"),
    "reading": ("Reading ...", "读入中……"),
    "thinking": ("Thinking: {n} pieces", "思考中：{n} 段"),
    "writing": ("Writing: {n} pieces", "书写中：{n} 段"),
    "drawing": ("Drawing: update {n} of {all}", "绘制中：第 {n} 步，共 {all} 步"),
    "left": ("about {time} left", "大约还要 {time}"),
    "stopped": ("Stopped; the model is free again.", "已停止，模型已空出。"),
    "done": ("Done in {time}", "完成，用时 {time}"),
    "done.seed": ("seed {seed}", "种子 {seed}"),
    "broken": (
        "Something went wrong inside ({kind}); the terminal says more.",
        "内部出错（{kind}），详情见终端。",
    ),
    "memory": (
        "The job does not fit into memory; draw smaller or fewer pictures, or load with --precision fp8.",
        "内存不够；请画小一点、少几张，或用 --precision fp8 载入。",
    ),
    "seed.wrong": (
        "the seed is {seed!r}; it must be a whole number, 0 or more.",
        "种子是 {seed!r}；应为不小于 0 的整数。",
    ),
    "no.picture": ("there is no picture to edit; drop one or several first.", "还没有要修改的图片，请先放一张。"),
    "no.picked": ("there is no result yet; make a picture first.", "还没有结果，请先做一张图。"),
}


class TellError(InputError):
    """A sentence that is in the visitor's language already."""


def say(key: str, language: str, **values: Any) -> str:
    """A text by its key."""
    pair = TEXTS[key]
    text = pair[list(LANGUAGES).index(language)]
    return text.format(**values) if values else text


def parted(text: str) -> tuple[str, str]:
    """What a model wrote, as people read it: the thought, and what follows it. Markers are left out."""
    thought, mark, rest = text.partition("</think>")
    if not text.lstrip().startswith("<think>"):
        return "", unmarked(text)
    thought = unmarked(thought.replace("<think>", "", 1)).strip()
    return thought, unmarked(rest).strip() if mark else ""


def language_of(accepted: str | None) -> str:
    """The page's language by a browser's Accept-Language: Chinese where it stands before English."""
    wishes: list[tuple[float, str]] = []
    for number, part in enumerate((accepted or "").split(",")):
        name, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            weight = 0.0
        wishes.append((-weight - 1e-3 / (number + 1), name.lower()[:2]))
    known = [name for _, name in sorted(wishes) if name in LANGUAGES]
    return known[0] if known else "en"


def seconds(value: float, language: str) -> str:
    """A span of time as people say it."""
    minutes, rest = divmod(round(value), 60)
    if minutes:
        return f"{minutes} 分 {rest} 秒" if language == "zh" else f"{minutes} min {rest} s"
    shown = f"{value:.1f}" if value < 10 else f"{value:.0f}"
    return f"{shown} 秒" if language == "zh" else f"{shown} s"
