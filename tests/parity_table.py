"""Runs the parity tests and prints the largest error of each kind as a table:

    python tests/parity_table.py [--write]

--write puts the table between the `table:parity` marks of README.md and README.zh.md.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
FILES = ("test_parity_parts.py", "test_parity_cases.py", "test_parity_training.py")
WHAT = {
    "test_time_embedding": (1e-5, "time embedding", "时间嵌入"),
    "test_text": (1e-5, "hidden states and logits of texts", "文本的隐状态与 logits"),
    "test_vit": (1e-5, "ViT features, and hidden states behind them", "ViT 特征及其后的隐状态"),
    "test_vae": (2e-5, "autoencoder, and hidden states behind its latents", "自编码器及其潜变量后的隐状态"),
    "test_case": (1e-5, "final latents of 18 pictures, drawn and edited", "18 张图（画图与改图）的最终潜变量"),
    "test_losses_and_gradients": (2e-5, "training losses a token, and gradients", "训练的逐 token 损失与梯度"),
}
WORDS = {
    "README.md": ("compared with the official code", "tolerance", "largest relative error", "{} tests passed; {}."),
    "README.zh.md": ("与官方代码比较", "容差", "最大相对误差", "{} 项测试通过；{}。"),
}


class Recorder:
    """A pytest plugin that notes what `error` returns in each test."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = defaultdict(float)
        self.passed = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: Any) -> Any:
        module, name, plain = item.module, item.originalname or item.name, getattr(item.module, "error", None)
        if plain is None:
            return (yield)

        def noted(*tensors: torch.Tensor) -> float:
            found = plain(*tensors)
            self.largest[name] = max(self.largest[name], found)
            return found

        module.error = noted
        try:
            return (yield)
        finally:
            module.error = plain

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.passed += report.when == "call" and report.passed


def table(recorder: Recorder, page: str = "README.md") -> str:
    *heads, end = WORDS[page]
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|"]
    for name, (tolerance, *names) in WHAT.items():
        lines.append(f"| {names[list(WORDS).index(page)]} | {tolerance:.0e} | {recorder.largest[name]:.1e} |")
    device = f"CPU, float32, PyTorch {torch.__version__.split('+')[0]}"
    return "\n".join([*lines, "", end.format(recorder.passed, device)])


def main() -> int:
    recorder = Recorder()
    code = pytest.main(["-q", "-p", "no:xdist", *(str(HERE / name) for name in FILES)], plugins=[recorder])
    print(table(recorder))
    for page in WORDS if "--write" in sys.argv[1:] and code == 0 else ():
        path = HERE.parent / page
        marks = r"(<!-- table:parity -->\n).*?(\n<!-- /table:parity -->)"
        filled = rf"\g<1>{table(recorder, page)}\g<2>"
        text = re.sub(marks, filled, path.read_text(encoding="utf-8"), flags=re.DOTALL)
        path.write_text(text, encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
