"""Triton kernels of training in its interpreter, on the CPU: the numbers, not the speed."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

RUNS = """
import numpy as np, torch
from bagel.model import triton_runs, varlen
from bagel.runs import Runs

torch.manual_seed(0)
for causal in (False, True):
    for heads, kv_heads, width in ((6, 2, 64), (4, 4, 72)):
        runs = Runs.of(np.array([70, 3, 150]), np.array([130, 3, 233]))
        q, rows = torch.randn(223, heads, width), torch.randn(366, 3 * kv_heads * width)
        k, v = (x.unflatten(-1, (kv_heads, width)) for x in rows.chunk(3, dim=-1)[:2])  # with a gap between rows
        ends = runs.query_ends, runs.key_ends, runs.longest_query, runs.longest_key, causal
        out, wide = torch.empty_like(q), torch.zeros(2, heads, 300)
        sums, summed = (x[:, 40:263] for x in wide)  # as one group of several has them
        varlen.forward((out, sums), q, k, v, *ends)
        made = torch.empty_like(q)
        triton_runs.forward(q, k, v, *ends[:3], causal, (made, summed))
        torch.testing.assert_close(made, out, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(wide[1], wide[0], rtol=1e-4, atol=1e-5)
        known = torch.randn_like(out), q, k, v, out
        found, wanted = ([torch.empty(x.shape) for x in (q, k, v)] for _ in range(2))
        triton_runs.backward(*known, sums, *ends, found)
        varlen.backward(wanted, *known, sums, *ends)
        for found, exact in zip(found, wanted, strict=True):
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
"""

COPIES = """
import numpy as np, torch
from bagel.model import triton_copies, varlen
from bagel.runs import list_copies

torch.manual_seed(0)
for heads, width in ((4, 32), (4, 128), (2, 72), (5, 128)):
    times = np.random.default_rng(0).integers(0, 7, 45)  # rows listed 0 to 6 times
    times[7:9] = 1, 30
    keys = np.random.default_rng(1).permutation(np.repeat(np.arange(45), times))
    copies = [torch.from_numpy(x) for x in list_copies(keys, 45)]
    grad = torch.randn(len(keys), heads, width)
    assert torch.equal(triton_copies.sum_copies(grad, *copies), varlen._sum_copies(grad, *copies))
"""

MASTER = """
import torch
from bagel.train import master, triton_master

for skip in (0.0, 1.0):
    made = []
    for update in (master._update_all, triton_master.update):
        torch.manual_seed(1)
        weight, low = torch.randn(37, 133).bfloat16(), torch.randint(-30000, 30000, (37, 133), dtype=torch.int16)
        made.append([weight, torch.randn(133, 37).t(), low, torch.randn(37, 133), torch.rand(37, 133)])
        update([made[-1]], torch.tensor([1e-3, 0.1, 0.3, 2.0, skip]), 0.9, 0.95, 1e-8, 0.01)
    plain, ours = ([master.joined(x[0], x[2]), x[3], x[4]] for x in made)
    for found, wanted in zip(ours, plain, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
"""


@pytest.mark.parametrize("code", [RUNS, COPIES, MASTER], ids=["runs", "copies", "master"])
def test_numbers(code, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read when the kernels are defined: a process of its own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
