"""The nodes' Chinese texts, but for the knobs, whose are the page's."""

NODES: dict[str, tuple[str, str]] = {
    "BagelMotLoad": ("BAGEL 载入模型", "载入 BAGEL 模型，不会下载任何东西。mini 是内置的小模型。"),
    "BagelMotUnload": ("BAGEL 卸载模型", "等 after 做完就释放模型占用的内存；再用到时会重新载入。"),
    "BagelMotDrawKnobs": ("BAGEL 画图旋钮", "画图的各个旋钮，默认值与官方应用相同。"),
    "BagelMotEditKnobs": ("BAGEL 改图旋钮", "改图的各个旋钮，默认值与官方应用相同。"),
    "BagelMotTextKnobs": ("BAGEL 写字旋钮", "回答时的各个旋钮，默认值与官方应用相同。"),
    "BagelMotDraw": ("BAGEL 画图", "按提示词画图，可以一批画几张。"),
    "BagelMotEdit": ("BAGEL 改图", "按指令修改一批图片中的每一张；另外的图片每一张都会用到。"),
    "BagelMotAsk": ("BAGEL 看图问答", "回答问题，可以带图片，也可以不带。"),
    "BagelMotTalk": ("BAGEL 新对话", "开始一段对话：图片和文字轮流进行，每一轮都依据前面的全部内容。"),
    "BagelMotTalkRead": ("BAGEL 对话：读入", "把图片和文字加入对话，不作回答。"),
    "BagelMotTalkDraw": ("BAGEL 对话：画图", "读入你的话，依据前面的全部内容画下一张图。"),
    "BagelMotTalkSay": ("BAGEL 对话：回答", "读入你的话，依据前面的全部内容回答。"),
    "BagelMotTalkGoOn": ("BAGEL 对话：继续", "读入你的话，然后文字和图片交替输出，由模型决定，或按 parts 的顺序。"),
}
"""Name and explanation."""

INPUTS: dict[str, tuple[str, str]] = {
    "model": ("模型", "mini，或 ComfyUI 的 models/bagel 里官方格式的文件夹；其他节点从“BAGEL 载入模型”接过来。"),
    "precision": (
        "精度",
        "权重用什么精度存放。default：GPU 上 16 位；fp8、int8、nf4 更省显存；auto：从 bf16 起选第一个放得下的。",
    ),
    "offload": (
        "放在内存的部分",
        "哪些部分放在内存里：und,gen,vit,vae,embed,head 中的几个，或 auto（尽量少）。不填：没有。",
    ),
    "device": ("设备", "auto：跟 ComfyUI 一样。也可以写 cpu、cuda:1、mps，或几块显卡：cuda:0,cuda:1。"),
    "path": ("路径", "别处的文件夹或文件；填了就不用上面选的。"),
    "lora": ("LoRA", "适配器文件夹，一行一个，冒号后面是权重：adapters/ink:0.8"),
    "after": ("之后", "要先做完的东西，比如一张图片；会原样传下去。"),
    "prompt": ("提示词", "要画什么。"),
    "instruction": ("指令", "要改什么。"),
    "question": ("问题", "要回答什么。"),
    "message": ("你的话", "你说的话，可以不填。"),
    "conversation": ("对话", "来自“BAGEL 新对话”或前面的一轮；一轮之后可以接好几轮，各走各的。"),
    "width": ("宽", "像素，16 的倍数。0：跟最后一张图一样；没有图时用模型的预设。"),
    "height": ("高", "像素，16 的倍数。0：跟最后一张图一样；没有图时用模型的预设。"),
    "count": ("张数", "画几张，种子依次加一。"),
    "together": ("合在一起", "把一批图片当作同一个问题的几张图，比如视频的几帧；否则每张图一个回答。"),
    "parts": ("顺序", "接下来要什么，例如 text,image。不填：由模型决定。"),
    "max_images": ("最多几张图", "最多画几张图。"),
    "image": ("图片", "要用的图片。"),
    "image_2": ("图片 2", "同一个请求的另一张图片。"),
    "image_3": ("图片 3", "同一个请求的另一张图片。"),
    "image_4": ("图片 4", "同一个请求的另一张图片。"),
    "knobs": ("旋钮", "接旋钮节点；不接就用模型自己的预设。"),
    "image_knobs": ("图片旋钮", "接画图或改图旋钮；不接就用模型自己的预设。"),
    "text_knobs": ("写字旋钮", "接写字旋钮；不接就用模型自己的预设。"),
}
"""Name and explanation."""

OUTPUTS: dict[str, str] = {
    "model": "模型",
    "after": "之后",
    "knobs": "旋钮",
    "image": "图片",
    "images": "图片",
    "thought": "思考",
    "answer": "回答",
    "text": "文字",
    "conversation": "对话",
}
