"""The knobs' names in both languages, and their explanations in Chinese; the English ones are `bagel.options`'s."""

from __future__ import annotations

KNOB_NAMES: dict[str, tuple[str, str]] = {
    "height": ("Height", "高"),
    "width": ("Width", "宽"),
    "num_timesteps": ("Timesteps", "步数"),
    "timestep_shift": ("Timestep shift", "步距偏移"),
    "cfg_text_scale": ("Text guidance", "文字引导"),
    "cfg_image_scale": ("Picture guidance", "图片引导"),
    "cfg_interval": ("Guidance interval", "引导区间"),
    "cfg_renorm_min": ("Renorm minimum", "归一下限"),
    "cfg_renorm_type": ("Renorm kind", "归一方式"),
    "step_cache": ("Step cache", "步间缓存"),
    "solver": ("Solver", "求解器"),
    "think": ("Think first", "先思考"),
    "max_tokens": ("Most tokens", "最多词元"),
    "do_sample": ("Sample", "随机采样"),
    "temperature": ("Temperature", "温度"),
    "seed": ("Seed", "种子"),
}

CHINESE: dict[str, str] = {
    "height": "高，像素，16 的倍数。改图时不填就跟最后一张图一样。",
    "width": "宽，像素，16 的倍数。改图时不填就跟最后一张图一样。",
    "num_timesteps": "从噪声到图片取几个时间点；n 个点更新 n - 1 次。越多越细，也越慢。",
    "timestep_shift": "大于 1：多花几步在布局上（接近噪声）；小于 1：多花在细节上。",
    "cfg_text_scale": "多听文字的话；1 为关闭。一般 4 到 8。",
    "cfg_image_scale": "多保留输入图片；1 为关闭。一般 1 到 2。",
    "cfg_interval": "在哪段时间开引导，从低到高（1 是噪声）；官方应用画图用 0.4 到 1.0，改图用 0.0 到 1.0。",
    "cfg_renorm_min": "引导后的速度会缩回原来的长度，但不小于这个比例；1 为不缩。",
    "cfg_renorm_type": "长度按什么算：global（整张图）、channel（每个词元）、text_channel（每个词元，只看文字引导）。"
    "改图发糊就用 global。",
    "step_cache": "有些更新靠预测而不真算：更快，图会略有不同。guidance 只省引导的部分；forecast3、forecast5 每三步、"
    "每五步算一次；taylorseer 是官方代码的做法。",
    "solver": "沿速度走的办法：euler 同官方代码；ab2 是二阶，模型次数不增，步数约可减半。",
    "think": "先写一段思考，再据此回答或作画。",
    "max_tokens": "最多写多少词元，含起始词元。",
    "do_sample": "按概率随机取词；不勾则总取最可能的。",
    "temperature": "小于 1 偏向最可能的词，大于 1 更发散。",
    "seed": "这次请求自己的随机种子；不给就随机取一个并显示。",
}

PRESET_NAMES: dict[str, tuple[str, str]] = {
    "standard": ("standard", "标准"),
    "quick": ("quick", "快速"),
    "fine": ("fine", "精细"),
    "clear": ("against blur", "防糊"),
    "literal": ("to the letter", "严格照做"),
    "precise": ("precise", "准确"),
    "varied": ("varied", "多样"),
    "thoughtful": ("thoughtful", "深思"),
}
