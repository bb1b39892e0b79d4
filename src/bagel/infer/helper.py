"""What a process runs that a leader started: python -m bagel.infer.helper"""

from __future__ import annotations

import os
import sys
import traceback

import torch

from bagel.errors import BagelError
from bagel.infer.together import serve
from bagel.parallel.launch import join_leader


def main() -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    crew = join_leader()
    try:
        serve(crew)
    except BagelError as error:
        sys.stderr.write(f"bagel: device {crew.rank}: {error}\n")
    except BaseException:
        traceback.print_exc()
    else:
        os._exit(0)
    os._exit(1)  # without waiting for groups that wait for each other


if __name__ == "__main__":
    main()
