"""One process of a run for the tests: `worker.py CONFIG.json [shared]`. With `shared` all ranks take turns at one
stream of packs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    import torch

    from bagel.train.config import TrainConfig
    from bagel.train.loop import train
    from train.packs import SharedPacks

    torch.set_num_threads(1)
    data = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    packs = SharedPacks(data["data"], rank, size) if "shared" in sys.argv[2:] else None
    train(TrainConfig.from_dict(data), packs)


if __name__ == "__main__":
    main()
