"""One rank that prepares a run and saves it: `memory_worker.py CONFIG.json`; prints the host memory that this took, in
bytes, as JSON on stderr: {"rank", "loading", "saving"}. Pages of mapped files, which all ranks share, do not count."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from pathlib import Path


def private() -> int:
    """Memory of this process alone."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


class Peak:
    """The most private memory while it is open, beyond what there was before."""

    def __enter__(self) -> Peak:
        gc.collect()
        self.before = self.most = private()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.most = max(self.most, private())
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self.most - self.before


def main() -> None:
    import torch._dynamo  # what loading would import is no memory of the model
    import torch.distributed.checkpoint
    import torch.distributed.fsdp

    from bagel.train import parallel
    from bagel.train.config import TrainConfig
    from bagel.train.setup import prepare

    torch.set_num_threads(1)
    config = TrainConfig.from_dict(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    world = parallel.start(config.parallel, config.device)
    world.gather("everyone is here")
    with Peak() as loading:
        setup = prepare(config, world)
    tensors = {name: value for name, value in setup.tensors().items() if name.startswith("model.")}
    with Peak() as saving:
        setup.checkpoints.save(1, tensors, {"step": 1})
        problem = setup.checkpoints.finish()
    assert problem is None, problem
    found = {"rank": int(os.environ.get("RANK", 0)), "loading": loading.grown, "saving": saving.grown}
    print(json.dumps(found), file=sys.stderr)
    parallel.stop(world)


if __name__ == "__main__":
    main()
