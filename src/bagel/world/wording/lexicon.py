"""The words for things, English and Chinese: for each name its synonyms, the usual one first.

The prompts choose among them and the answer checker accepts them all.
"""

from typing import Literal

Language = Literal["en", "zh"]
Lexicon = dict[str, dict[str, tuple[str, ...]]]

ENGLISH: Lexicon = {
    "colour": {
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
        "brown": ("brown",),
    },
    "shape": {
        "circle": ("circle", "disc"),
        "square": ("square",),
        "triangle": ("triangle",),
        "star": ("star",),
        "diamond": ("diamond", "rhombus"),
        "cross": ("cross", "plus sign"),
        "ring": ("ring", "hoop"),
        "heart": ("heart",),
        "moon": ("moon", "crescent"),
        "arrow": ("arrow",),
    },
    "size": {
        "small": ("small", "little"),
        "medium": ("medium-sized", "mid-sized", "medium"),
        "large": ("large", "big"),
    },
    "background": {
        "white": ("white",),
        "grey": ("grey", "gray"),
        "black": ("black",),
        "beige": ("beige",),
        "sky": ("light blue", "sky blue", "pale blue"),
        "mint": ("light green", "mint", "pale green"),
    },
    "relation": {
        "left": ("to the left of", "left of", "on the left of", "left"),
        "right": ("to the right of", "right of", "on the right of", "right"),
        "above": ("above", "over"),
        "below": ("below", "under", "beneath", "underneath"),
    },
    "place": {
        "top left": ("top left", "upper left"),
        "top centre": ("top",),
        "top right": ("top right", "upper right"),
        "middle left": ("left",),
        "centre": ("centre", "center", "middle"),
        "middle right": ("right",),
        "bottom left": ("bottom left", "lower left"),
        "bottom centre": ("bottom",),
        "bottom right": ("bottom right", "lower right"),
    },
    "number": {
        str(n): (word, str(n))
        for n, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
        )
    },
    "yes": {"yes": ("yes",), "no": ("no",)},
}

CHINESE: Lexicon = {
    "colour": {
        "red": ("红色", "红"),
        "orange": ("橙色", "橙", "橘色"),
        "yellow": ("黄色", "黄"),
        "green": ("绿色", "绿"),
        "cyan": ("青色", "青"),
        "blue": ("蓝色", "蓝"),
        "purple": ("紫色", "紫"),
        "pink": ("粉色", "粉红色", "粉红"),
        "brown": ("棕色", "褐色", "棕"),
    },
    "shape": {
        "circle": ("圆形", "圆"),
        "square": ("正方形", "方块"),
        "triangle": ("三角形",),
        "star": ("五角星", "星形", "星星"),
        "diamond": ("菱形",),
        "cross": ("十字", "十字形"),
        "ring": ("圆环", "环形"),
        "heart": ("心形", "爱心"),
        "moon": ("月牙", "月亮"),
        "arrow": ("箭头",),
    },
    "size": {"small": ("小", "小号"), "medium": ("中等大小", "中号"), "large": ("大", "大号")},
    "background": {
        "white": ("白色", "白"),
        "grey": ("灰色", "灰"),
        "black": ("黑色", "黑"),
        "beige": ("米色",),
        "sky": ("浅蓝色", "天蓝色", "淡蓝色"),
        "mint": ("浅绿色", "薄荷绿", "淡绿色"),
    },
    "relation": {
        "left": ("左边", "左侧"),
        "right": ("右边", "右侧"),
        "above": ("上方", "上面"),
        "below": ("下方", "下面"),
    },
    "place": {
        "top left": ("左上角", "左上"),
        "top centre": ("上边", "上方", "顶部"),
        "top right": ("右上角", "右上"),
        "middle left": ("左边", "左侧"),
        "centre": ("中间", "中央", "正中"),
        "middle right": ("右边", "右侧"),
        "bottom left": ("左下角", "左下"),
        "bottom centre": ("下边", "下方", "底部"),
        "bottom right": ("右下角", "右下"),
    },
    "number": {str(n): (word, str(n)) for n, word in enumerate("零一两三四五六七八九十")},
    "yes": {
        "no": ("不是", "没有", "不在", "不对", "否", "不"),
        "yes": ("是的", "有", "在", "对", "是"),
    },
}
CHINESE["number"]["2"] = ("两", "二", "2")

LEXICONS: dict[Language, Lexicon] = {"en": ENGLISH, "zh": CHINESE}
