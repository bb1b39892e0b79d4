"""Triton kernels of inference in its interpreter, on the CPU: the numbers, not the speed."""

import subprocess
import sys

import pytest

pytest.importorskip("triton")

GEMV = """
import torch, torch.nn.functional as F
from bagel.model import triton_gemv as gemv
from bagel.model.packed import quantise_int8

torch.manual_seed(0)
for outputs, inputs in ((200, 96), (130, 1300)):
    for shape in (None, gemv.Shape(2, 512, 2, ahead=False), gemv.Shape(4, 256, 2, ahead=True)):
        x, weight, norm = torch.randn(1, inputs), torch.randn(outputs, inputs) * 0.02, (torch.rand(inputs), 1e-6)
        bias, add = torch.randn(outputs), torch.randn(1, outputs)
        found = gemv.gemv(x, weight, bias, add, shape=shape)
        torch.testing.assert_close(found, x @ weight.t() + bias + add, rtol=1e-4, atol=1e-5)
        gates = torch.randn(2 * outputs, inputs) * 0.02
        gate, up = (F.rms_norm(x, (inputs,), *norm) @ gates.t()).chunk(2, dim=1)
        found = gemv.gemv(x, gates, norm=norm, gated=True, shape=shape)
        torch.testing.assert_close(found, F.silu(gate) * up, rtol=1e-4, atol=1e-5)
        packed = quantise_int8(weight)
        found = gemv.gemv(x, packed, norm=norm, shape=shape)
        wanted = F.rms_norm(x, (inputs,), *norm) @ packed.wide(torch.float32).t()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
"""

TOKEN = """
import torch
from bagel.model import triton_token
from bagel.model.kernels import norm_and_rotate
from bagel.model.layers import Rotary

torch.manual_seed(0)
triton_token.PROGRAMS = 48
for heads, kv_heads, width, lengths in ((4, 2, 16, [0, 5, 70]), (14, 2, 128, [0, 150]), (6, 3, 24, [257])):
    rows, layers = len(lengths), 2
    stores = [torch.randn(layers, 2, length + 9, kv_heads, width) for length in lengths]
    wanted = [store.clone() for store in stores]
    norms = triton_token.Norms(torch.rand(width) + 0.5, torch.rand(width) + 0.5, 1e-6)
    cos, sin = Rotary(width, 1e6)(torch.tensor(lengths) + 3)
    halves = [angle[:, 0, : width // 2].contiguous() for angle in (cos, sin)]
    held = [[store.data_ptr() for store in stores], lengths, [store.shape[2] for store in stores]]
    places = triton_token.Places(*map(torch.tensor, held))
    for layer in range(layers):
        product = torch.randn(rows, heads + 2 * kv_heads, width)
        found = triton_token.attend(product, norms, *halves, places, layer, heads)
        q, k = norm_and_rotate(product, (norms.q, norms.k), (heads, kv_heads), cos, sin, norms.eps)
        for row, (store, plain, length) in enumerate(zip(stores, wanted, lengths)):
            plain[layer, 0, length], plain[layer, 1, length] = k[row], product[row, heads + kv_heads :]
            torch.testing.assert_close(store, plain)
            keys, values = (x[: length + 1].transpose(0, 1) for x in plain[layer])
            scores = q[row].unflatten(0, (kv_heads, -1)) @ keys.transpose(1, 2) / width**0.5
            seen = (scores.softmax(-1) @ values).flatten(0, 1)
            torch.testing.assert_close(found[row], seen, rtol=1e-4, atol=1e-5)
"""

STEP = """
import torch
from bagel import Bagel
from bagel.infer import token_step
from bagel.infer.context import Store
from bagel.infer.engine import Read
from bagel.model.triton_token import Norms, Places
from bagel.pack import TextPart
from conftest import CHECKPOINT

runtime = Bagel.load(CHECKPOINT, device="cpu").runtime
model, engine = runtime.checkpoint.model, runtime.engine
contexts = [engine.new_context() for _ in range(3)]
engine.forward([Read(c, TextPart([421, *range(5, 7 + 3 * i), 422])) for i, c in enumerate(contexts)])

class Event:
    record = synchronize = lambda self: None

class Captured:  # a graph that runs what it has captured
    def __init__(self): self.replay = lambda: None
    def __enter__(self): return self
    def __exit__(self, *error): return None

torch.cuda.Event, torch.cuda.CUDAGraph, torch.cuda.Stream = Event, Captured, lambda: Captured()
Captured.wait_stream = lambda self, other: None
torch.cuda.current_stream = lambda: Captured()
torch.cuda.stream = torch.cuda.graph = lambda *given, **named: Captured()
torch.Tensor.pin_memory = lambda self: self
with torch.inference_mode():
    spare = Store(model.local, 1, model.dtype, model.device)  # held as long as the graph
    graph = token_step._Graph(model, 4, spare)
    tokens = [421, 17, 300]
    for step in range(3):
        plain = [engine.forward([Read(c, TextPart([t]), keep=False)])[0].last for c, t in zip(contexts, tokens)]
        if step == 0:
            rows = [token_step._state(c, t, c.length) for c, t in zip(contexts, tokens)]
            assert len(rows) == 3
            graph.begin(rows)
        stream, logits = graph._step()
        torch.testing.assert_close(stream[:3], torch.cat(plain), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(logits[:3], model.logits(torch.cat(plain)), rtol=1e-4, atol=1e-4)
        for context, token in zip(contexts, tokens):
            context.advance(TextPart([token]).segment, token)
            context.reserve(1)
        tokens = graph.state[0, :3].tolist()
        assert tokens == logits[:3].argmax(-1).tolist()
        assert graph.state[2, :3].tolist() == [c.length for c in contexts]
        assert graph.state[1, :3].tolist() == [c.position for c in contexts]
        assert graph.state[1:3, 3].tolist() == [0, 0]
"""

FP8 = """
import torch, torch.nn.functional as F
from bagel.model import triton_fp8

torch.manual_seed(0)
for rows, width in ((3, 96), (5, 2200), (3, 4096)):
    gate, up = torch.randn(rows, width), torch.randn(rows, width)
    values, scale = triton_fp8.swiglu(torch.cat((gate, up), dim=1))
    again, same = triton_fp8.swiglu(torch.cat((gate, up), dim=1), in_registers=1)
    wanted = F.silu(gate) * up
    torch.testing.assert_close(scale[:, 0], wanted.abs().amax(1) / 448)
    assert torch.equal(values.view(torch.uint8), again.view(torch.uint8))
    assert torch.equal(scale, same)
    exact = (wanted / scale).to(torch.float8_e4m3fn).view(torch.uint8)
    assert (values.view(torch.uint8) == exact).float().mean() > 0.9  # the interpreter rounds some to the wrong side
"""

NORM = """
import torch, torch.nn.functional as F
from bagel.model import triton_group_norm

torch.manual_seed(0)
for cut, channels, groups, height, width, dtype in (
    ((512, 1024), 96, 8, 29, 23, torch.float32),
    ((512, 1024), 128, 32, 4, 5, torch.bfloat16),
    ((512, 1024), 96, 8, 1, 1, torch.float32),
    ((2, 20), 64, 8, 20, 13, torch.bfloat16),  # slices grown to 16 places
    ((2, 1024), 64, 1, 15, 13, torch.float32),  # more slices than are read at once
):
    triton_group_norm._SLICE, triton_group_norm._MOST_SLICES = cut
    x = (torch.randn(2, channels, height, width) + 3).contiguous(memory_format=torch.channels_last)
    weight, bias, before = (torch.randn(channels).to(dtype) for _ in range(3))
    for given in (None, before):
        moved = x.double() if given is None else x.double() + given.double()[:, None, None]
        wanted = F.group_norm(moved, groups, weight.double(), bias.double(), 1e-6)
        for silu in (False, True):
            found = triton_group_norm.group_norm(x, groups, weight, bias, 1e-6, silu, given)
            torch.testing.assert_close(found.double(), F.silu(wanted) if silu else wanted, rtol=1e-5, atol=2e-5)
"""

VAE = """
import torch
from bagel.model import kernels
from bagel.model.config import VAEConfig
from bagel.model.vae import VAE

torch.manual_seed(0)
vae = VAE(VAEConfig(ch=32, ch_mult=(1, 2, 2), num_res_blocks=1, norm_groups=8)).requires_grad_(False)
for parameter in vae.parameters():
    parameter += 0.1 * torch.randn_like(parameter)  # biases that would be missed
pixels, latents = torch.rand(2, 3, 16, 24) * 2 - 1, torch.randn(2, 16, 4, 6)
with torch.no_grad():
    wanted = vae.moments(pixels), vae.decode(latents)
    kernels._fused = lambda x: True
    vae.to(memory_format=torch.channels_last)
    assert kernels.convolve(pixels, vae.encoder.conv_in)[1] is not None
    for found, exact in zip((vae.moments(pixels), vae.decode(latents)), wanted, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.parametrize(
    "code", [GEMV, TOKEN, STEP, FP8, NORM, VAE], ids=["gemv", "token", "step", "fp8", "group norm", "autoencoder"]
)
def test_numbers(code, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # read when the kernels are defined: a process of its own
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
