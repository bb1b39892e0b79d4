"""What runs on a GPU alone: each fused kernel against its plain form in float64, the captured step for text
against the plain path, and one update of the flow against float32."""

import pytest
import torch
import torch.nn.functional as F

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUDA = torch.device("cuda")


def distance(found, wanted):
    """Relative error in the norm."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def normal(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device=CUDA).to(dtype)


def norm64(x, weight, eps=1e-6):
    return F.rms_norm(x.double(), weight.shape, weight.double(), eps)


@pytest.mark.parametrize(("rows", "width"), [(1, 64), (7, 96), (515, 3584)])
def test_rms_norm(rows, width):
    from bagel.model.triton_kernels import rms_norm

    x, weight = normal(rows, width), normal(width)
    assert distance(rms_norm(x, weight, 1e-6), norm64(x, weight)) < 3e-3


@pytest.mark.parametrize(("rows", "width"), [(1, 160), (5, 200), (33, 18944)])
def test_swiglu(rows, width):
    from bagel.model.triton_kernels import swiglu

    x = normal(rows, 2 * width)
    gate, up = x.double().chunk(2, dim=-1)
    assert distance(swiglu(x), F.silu(gate) * up) < 3e-3


@pytest.mark.parametrize(("rows", "queries", "keys", "width"), [(1, 4, 2, 16), (9, 6, 3, 24), (70, 28, 4, 128)])
def test_norm_and_rotate(rows, queries, keys, width):
    from bagel.model.kernels import rotate
    from bagel.model.layers import Rotary
    from bagel.model.triton_kernels import norm_and_rotate

    x, weights = normal(rows, queries + 2 * keys, width), (normal(width), normal(width))
    cos, sin = Rotary(width, 1e6)(torch.arange(5, 5 + rows, device=CUDA))
    found = norm_and_rotate(x, weights, (queries, keys), cos, sin, 1e-6)
    for out, heads, weight in zip(found, (x[:, :queries], x[:, queries:-keys]), weights, strict=True):
        assert distance(out, rotate(norm64(heads, weight), cos, sin)) < 5e-3


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 64, 64), (3, 200, 96), (16, 4608, 3584), (6, 3584, 18944)])
def test_skinny_products(rows, outputs, inputs):
    from bagel.model.triton_gemv import gemv
    from bagel.model.triton_skinny import skinny

    for product in (skinny, gemv) if rows == 1 else (skinny,):
        check_product(product, rows, outputs, inputs)


def check_product(skinny, rows, outputs, inputs):
    x, weight, norm = normal(rows, inputs), normal(outputs, inputs) * 0.02, normal(inputs)
    bias, add = normal(outputs), normal(rows, outputs)
    plain = x.double() @ weight.double().t()
    assert distance(skinny(x, weight), plain) < 3e-3
    assert distance(skinny(x, weight, bias, add), plain + bias.double() + add.double()) < 3e-3
    normed = norm64(x, norm) @ weight.double().t()
    assert distance(skinny(x, weight, bias, norm=(norm, 1e-6)), normed + bias.double()) < 6e-3
    gates = normal(2 * outputs, inputs) * 0.02
    gate, up = (norm64(x, norm) @ gates.double().t()).chunk(2, dim=-1)
    assert distance(skinny(x, gates, norm=(norm, 1e-6), gated=True), F.silu(gate) * up) < 1e-2


def test_products_of_many_rows():
    from bagel.model import kernels

    x, weight, bias, add = normal(9001, 128), normal(256, 128), normal(256), normal(9001, 256)
    plain = x.double() @ weight.double().t()
    with torch.inference_mode():
        assert distance(kernels.linear(x, weight), plain) < 3e-3
        assert distance(kernels.linear(x, weight, bias), plain + bias.double()) < 3e-3
        assert distance(kernels.linear(x, weight, add=add), plain + add.double()) < 3e-3
        into = add.clone()
        assert kernels.linear(x, weight, add=into, into=True) is into
        assert distance(into, plain + add.double()) < 3e-3


@pytest.mark.parametrize("fp8", [False, True])
def test_an_mlp_in_slices_takes_the_place_of_its_input(fp8):
    from bagel.model import kernels
    from bagel.model.fp8 import quantise

    x, norm = normal(9001, 128), (normal(128), 1e-6)
    gate_up, down = normal(512, 128) * 0.1, normal(128, 256) * 0.1
    gate_up, down = (quantise(gate_up), quantise(down)) if fp8 else (gate_up, down)
    with torch.inference_mode():
        wanted = kernels.mlp(x, norm, gate_up, down)
        alone = kernels.mlp(x, norm, gate_up, down, add=False)
        assert distance(wanted.double() - x.double(), alone) < 2e-2
        mine = x.clone()
        found = kernels.mlp(mine, norm, gate_up, down, into=True)
    assert found is mine
    assert distance(found, wanted) < 1e-3


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(("block_n", "block_k", "warps"), [(2, 512, 2), (1, 1024, 2), (4, 512, 4)])
def test_cuts_of_a_product_of_one_row(block_n, block_k, warps, ahead):
    from bagel.model.fp8 import quantise
    from bagel.model.triton_gemv import Shape, gemv

    shape = Shape(block_n, block_k, warps, ahead)
    check_product(lambda *given, **named: gemv(*given, **named, shape=shape), 1, 300, 1300)
    x, weight = normal(1, 1296), quantise(normal(300, 1296))
    assert distance(gemv(x, weight, shape=shape), x.double() @ weight.wide(torch.float64).t()) < 5e-3


def test_cuts_of_a_product_of_a_few_rows():
    from bagel.model.fp8 import quantise
    from bagel.model.triton_skinny import Shape, skinny

    x, weight, norm = normal(4, 3584), quantise(normal(600, 3584) * 0.02), normal(3584)
    gate, up = (norm64(x, norm) @ weight.wide(torch.float64).t()).chunk(2, dim=-1)
    for shape in (None, Shape(32, 256, 4, 4), Shape(32, 512, 3, 4), Shape(16, 256, 6, 2)):
        assert distance(skinny(x, weight, shape=shape), x.double() @ weight.wide(torch.float64).t()) < 5e-3
        found = skinny(x, weight, norm=(norm, 1e-6), gated=True, shape=shape)
        assert distance(found, F.silu(gate) * up) < 1e-2


@pytest.fixture(params=[False, True], ids=["in turn", "early"])
def early(request, monkeypatch):
    """Whether a kernel starts while the one before it ends."""
    from bagel.model import triton_token

    if request.param and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs compute capability 9.0")
    monkeypatch.setattr(triton_token, "OVERLAP", request.param)


@pytest.mark.parametrize("programs", [16, 132, 264])
@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 2, 16), (6, 3, 24), (28, 4, 128)])
def test_between_the_products_of_a_token(heads, kv_heads, width, programs, early, monkeypatch):
    """The kernel that does all but the join against those that do it one by one."""
    from bagel.model import triton_decode, triton_token
    from bagel.model.kernels import norm_and_rotate
    from bagel.model.layers import Rotary

    monkeypatch.setattr(triton_token, "PROGRAMS", programs)
    lengths, layers = [0, 5, 700, 5001], 3
    stores = [normal(layers, 2, length + 9, kv_heads, width) for length in lengths]
    addresses, held, places = (
        torch.tensor(x, device=CUDA) for x in ([s.data_ptr() for s in stores], lengths, [s.shape[2] for s in stores])
    )
    weights = normal(width), normal(width)
    cos, sin = Rotary(width, 1e6)(held)
    halves = [angle[:, 0, : width // 2].contiguous() for angle in (cos, sin)]
    where, norms = triton_token.Places(addresses, held, places), triton_token.Norms(*weights, 1e-6)
    for layer in range(layers):
        product = normal(4, heads + 2 * kv_heads, width)
        found = triton_token.attend(product, norms, *halves, where, layer, heads)
        kept = [store[layer, :, length].clone() for store, length in zip(stores, lengths, strict=True)]
        with torch.inference_mode():
            q, k = norm_and_rotate(product, weights, (heads, kv_heads), cos, sin, 1e-6)
        triton_decode.write(k, product[:, heads + kv_heads :], addresses, held, places, layer)
        wanted = triton_decode.attend(q, kv_heads, addresses, held + 1, places, layer)
        for store, length, before in zip(stores, lengths, kept, strict=True):
            assert distance(before, store[layer, :, length]) < 2e-3
        assert distance(found, wanted) < 5e-3
        for _ in range(5):
            assert torch.equal(triton_token.attend(product, norms, *halves, where, layer, heads), found)


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(4, 2, 16), (28, 4, 128)])
def test_attention_of_one_token(heads, kv_heads, width):
    from bagel.model import triton_decode

    lengths, layers = [0, 5, 700, 5001], 3
    stores = [normal(layers, 2, length + 9, kv_heads, width) for length in lengths]
    q, k, v = normal(4, heads, width), normal(4, kv_heads, width), normal(4, kv_heads, width)
    addresses, held, places = (
        torch.tensor(x, device=CUDA) for x in ([s.data_ptr() for s in stores], lengths, [s.shape[2] for s in stores])
    )
    for layer in range(layers):
        triton_decode.write(k, v, addresses, held, places, layer)
        found = triton_decode.attend(q, kv_heads, addresses, held + 1, places, layer)
        for row, (store, length) in enumerate(zip(stores, lengths, strict=True)):
            assert torch.equal(store[layer, 0, length], k[row])
            assert torch.equal(store[layer, 1, length], v[row])
            keys, values = (x[: length + 1].double().transpose(0, 1) for x in store[layer])
            group = heads // kv_heads
            scores = q[row].double().unflatten(0, (kv_heads, group)) @ keys.transpose(1, 2) / width**0.5
            assert distance(found[row], (scores.softmax(-1) @ values).flatten(0, 1)) < 5e-3


@pytest.fixture(scope="module")
def models():
    """The small checkpoint in bf16 on the GPU, and in float32 on the CPU."""
    from bagel import Bagel
    from conftest import CHECKPOINT

    return Bagel.load(CHECKPOINT, device="cuda", dtype="bf16"), Bagel.load(CHECKPOINT, device="cpu")


def test_captured_writing_equals_the_plain_path(models):
    bagel, _ = models
    questions = [["hello world"], ["A photo of a cat", "and more"], ["天空"]]
    bagel.runtime.engine.fast = False
    plain = [bagel.chat(q, max_tokens=12).token_ids for q in questions]
    bagel.runtime.engine.fast = True
    captured = [bagel.chat(q, max_tokens=12).token_ids for q in questions]
    together = [r.token_ids for r in bagel.chat(questions, max_tokens=12)]
    agreeing = sum(a[:4] == b[:4] == c[:4] for a, b, c in zip(plain, captured, together, strict=True))
    assert agreeing >= 2  # random weights leave ties that rounding may break


def test_without_compile_no_kernel_of_ours_runs(models, monkeypatch):
    from bagel import Bagel
    from bagel.model import kernels
    from conftest import CHECKPOINT

    def none_of_ours():
        raise AssertionError("a Triton kernel was asked for")

    plain = Bagel.load(CHECKPOINT, device="cuda", dtype="bf16", compile=False)
    options = {"height": 64, "width": 96, "num_timesteps": 4, "seed": 5}
    wanted = models[0].draw("a red cube", **options).latent
    monkeypatch.setattr(kernels, "_triton", none_of_ours)
    assert distance(plain.draw("a red cube", **options).latent, wanted) < 0.05
    assert plain.chat(["hello world"], max_tokens=4).token_ids
    with pytest.raises(AssertionError, match="asked for"):
        models[0].draw("a red cube", **options)


def test_tokens_begun_ahead_are_the_same(models, early):
    """Greedy and drawn, alone and in company, against tokens that the host chooses one by one."""
    from bagel.infer.engine import Engine

    bagel, _ = models
    runtime, questions = bagel.runtime, [["hello world"], ["A photo of a cat", "and more"], ["天空"]]
    options = {"max_tokens": [3, 40, 17], "do_sample": [False, True, True], "seed": [1, 2, 3]}
    made = {}
    for ahead in (False, True):
        runtime.engine = Engine(runtime.engine.model, runtime.engine.rules, ahead=ahead)
        each = [{name: values[i] for name, values in options.items()} for i in range(3)]
        made[ahead] = [bagel.chat(q, **own).token_ids for q, own in zip(questions, each, strict=True)]
        together = [r.token_ids for r in bagel.chat(questions, **options)]
        assert [len(ids) for ids in together] == [len(ids) for ids in made[ahead]]
    assert made[True] == made[False]


def test_a_long_text_behind_a_context(models):
    """A text read at once behind another, which is one run for the kernel, against the plain path."""
    from bagel.infer.engine import Engine, Read
    from bagel.pack import TextPart

    bagel, _ = models
    seen = []
    for fast in (False, True):
        engine = Engine(bagel.runtime.checkpoint.model, bagel.runtime.engine.rules, fast=fast)
        context = engine.new_context()
        engine.forward([Read(context, TextPart([421, *range(5, 205), 422]))])
        seen.append(engine.forward([Read(context, TextPart(list(range(7, 107)))), Read(context, TextPart([421]))]))
    for plain, fast in zip(*seen, strict=True):
        assert distance(fast.last, plain.last) < 2e-2


def test_an_update_without_its_last_markers(models):
    from bagel.infer.engine import Engine, Read
    from bagel.infer.flow_step import FlowStep
    from bagel.pack import LatentPart, TextPart

    bagel, _ = models
    model = bagel.runtime.checkpoint.model
    engine = Engine(model, bagel.runtime.engine.rules)
    context = engine.new_context()
    engine.forward([Read(context, TextPart([421, 5, 6, 7, 422]))])
    noise = torch.randn(24, 64, generator=torch.Generator().manual_seed(0)).to(CUDA)
    reads = [Read(context, LatentPart(noise, (4, 6), 0.7, noised=True), keep=False)]
    with torch.inference_mode():
        step = FlowStep(model, *engine._prepare(reads))
        found = [step([noise], [0.7], None) for _ in range(3)]  # run, captured, replayed
        wanted = model(step.inputs, step.attention)[1]
    for one in found:
        assert torch.equal(one, wanted)


def test_pictures_agree_with_float32(models):
    gpu, cpu = models
    options = {"height": 64, "width": 96, "num_timesteps": 8, "seed": 5}
    for bagel_options in (options, {**options, "cfg_text_scale": 1.0}):
        assert (
            distance(gpu.draw("a red cube", **bagel_options).latent, cpu.draw("a red cube", **bagel_options).latent)
            < 0.05
        )


def test_float32_on_the_gpu_is_exact(models):
    from bagel import Bagel
    from conftest import CHECKPOINT

    gpu, cpu = Bagel.load(CHECKPOINT, device="cuda", dtype="fp32"), models[1]
    options = {"height": 64, "width": 96, "num_timesteps": 8, "seed": 5}
    assert distance(gpu.draw("a red cube", **options).latent, cpu.draw("a red cube", **options).latent) < 2e-4


def test_levels_become_the_same_numbers():
    """Patches and pictures travel as bytes: what the GPU makes of them is what the CPU makes, to the bit."""
    from bagel.images import from_levels

    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(from_levels(levels.to(CUDA)).cpu(), from_levels(levels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("pictures", "channels", "groups", "height", "width"),
    [
        (2, 128, 32, 37, 50),
        (3, 96, 8, 37, 50),  # 12 channels a group: no power of two
        (200, 32, 8, 16, 16),
        (2, 512, 32, 1, 1),
        (1, 256, 32, 300, 500),  # more slices than are read at once
        (1, 64, 32, 1030, 1026),  # slices longer than of small pictures
    ],
)
def test_group_norm(pictures, channels, groups, height, width, dtype):
    from bagel.model.triton_group_norm import group_norm

    limit = 3e-3 if dtype is torch.bfloat16 else 1e-5
    x = (normal(pictures, channels, height, width, dtype=dtype) + 3).contiguous(memory_format=torch.channels_last)
    weight, bias, before = (scale * normal(channels, dtype=dtype) for scale in (1, 1, 3))
    plain = F.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-6)
    assert distance(group_norm(x, groups, weight, bias, 1e-6, False), plain) < limit
    assert distance(group_norm(x, groups, weight, bias, 1e-6, True), F.silu(plain)) < limit
    moved = F.group_norm(x.double() + before.double()[:, None, None], groups, weight.double(), bias.double(), 1e-6)
    assert distance(group_norm(x, groups, weight, bias, 1e-6, False, before), moved) < limit


def test_a_resnet_block_of_the_autoencoder():
    """Convolutions whose bias is added by what follows them."""
    from bagel.model.vae import ResnetBlock

    block = ResnetBlock(64, 96).to(CUDA).double()
    x = torch.randn(2, 64, 24, 40, device=CUDA, dtype=torch.float64)
    wanted = block(x)
    fast = block.bfloat16().to(memory_format=torch.channels_last).requires_grad_(False)
    with torch.inference_mode():
        found = fast(x.bfloat16().contiguous(memory_format=torch.channels_last))
    assert distance(found, wanted.detach()) < 1e-2


def test_the_autoencoder():
    """All of it, convolutions' biases carried from block to block, against float64."""
    from bagel.model.config import VAEConfig
    from bagel.model.vae import VAE

    torch.manual_seed(0)
    vae = VAE(VAEConfig(ch=32, ch_mult=(1, 2, 3, 3), norm_groups=8)).to(CUDA).requires_grad_(False).double()
    for parameter in vae.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    pixels, latents = torch.rand(3, 3, 64, 96, device=CUDA) * 2 - 1, torch.randn(3, 16, 8, 12, device=CUDA)
    with torch.enable_grad():  # the plain path
        wanted = vae.moments(pixels), vae.decode(latents)
    for dtype, limit in ((torch.float32, 5e-3), (torch.bfloat16, 5e-2)):  # float32 convolves in TF32
        fast = vae.to(dtype, memory_format=torch.channels_last)
        with torch.inference_mode():
            assert distance(fast.moments(pixels), wanted[0]) < limit
            assert distance(fast.decode(latents), wanted[1]) < limit


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("width", [32, 64, 72, 128])
def test_attention_over_runs(causal, width):
    """FlashAttention over runs against the definition, forward and backward, twice the same."""
    import numpy as np

    from bagel.model.varlen import run_attention
    from bagel.runs import Runs

    runs = Runs.of(np.array([70, 3, 200]), np.array([130, 3, 333]))
    q, k, v = normal(273, 4, width), normal(466, 2, width), normal(466, 2, width)
    weight = normal(273, 4, width)

    def all_of(device, dtype):
        inputs = [x.to(device, dtype).requires_grad_() for x in (q, k, v)]
        out = run_attention(*inputs, runs.to(device), causal)
        return [out.detach(), *torch.autograd.grad((out * weight.to(device, dtype)).sum(), inputs)]

    found, again, wanted = all_of(CUDA, torch.bfloat16), all_of(CUDA, torch.bfloat16), all_of("cpu", torch.float32)
    for one, other, exact in zip(found, again, wanted, strict=True):
        assert torch.equal(one, other)
        assert distance(one.cpu(), exact) < 1e-2


@pytest.mark.parametrize(("heads", "width"), [(4, 32), (4, 128), (2, 72), (5, 128)])
def test_sums_of_copies(heads, width, monkeypatch):
    """Rows listed 0 to 14 times: the kernel, the GPU without Triton and the CPU give the same bits, every time."""
    import numpy as np

    from bagel.model import varlen
    from bagel.runs import list_copies

    generator = np.random.default_rng(0)
    keys = generator.permutation(np.repeat(np.arange(3001), generator.integers(0, 15, 3001)))
    copies = [torch.from_numpy(x) for x in list_copies(keys, 3001)]
    grad = normal(len(keys), heads, width)
    wanted = varlen._sum_copies(grad.cpu(), *copies)
    for triton in (True, False):
        if not triton:
            monkeypatch.setattr(varlen, "has_triton", lambda: False)
        for _ in range(2):
            assert torch.equal(varlen._sum_copies(grad, *(x.to(CUDA) for x in copies)).cpu(), wanted)


def test_fast_attention_equals_the_plain_one(models, monkeypatch):
    """A pass that mixes a prompt, a token and latents of two sizes."""
    from bagel.infer.engine import Engine, Read
    from bagel.pack import LatentPart, TextPart

    bagel, _ = models
    seen = []
    for fast in (False, True):
        engine = Engine(bagel.runtime.checkpoint.model, bagel.runtime.engine.rules, fast=fast)
        contexts = [engine.new_context() for _ in range(4)]
        engine.forward([Read(c, TextPart([421, 5, 6, 7 + i, 422])) for i, c in enumerate(contexts)])
        noise = torch.randn(24, 64, generator=torch.Generator().manual_seed(0))
        parts = [
            TextPart([421, 9, 8]),
            TextPart([421]),
            LatentPart(noise, (4, 6), 0.7, noised=True),
            LatentPart(noise[:4], (2, 2), 0.0),
        ]
        seen.append(engine.forward([Read(c, p, keep=False) for c, p in zip(contexts, parts, strict=True)]))
    for plain, fast in zip(*seen, strict=True):
        assert distance(fast.last, plain.last) < 2e-2
        if len(plain.latents):
            assert distance(fast.latents, plain.latents) < 2e-2


@pytest.mark.parametrize(("rows", "width"), [(3, 96), (300, 3584)])
def test_fp8_rows(rows, width):
    from bagel.model import triton_fp8

    x, weight = normal(rows, width), normal(width)
    for found, plain in (
        (triton_fp8.quantise(x), x.double()),
        (triton_fp8.quantise(x, (weight, 1e-6)), norm64(x, weight)),
    ):
        assert distance(found[0].double() * found[1], plain) < 4e-2
    gate, up = normal(rows, width), normal(rows, width)
    values, scale = triton_fp8.swiglu(torch.cat((gate, up), dim=1))
    assert distance(values.double() * scale, F.silu(gate.double()) * up.double()) < 4e-2


@pytest.mark.parametrize("width", [96, 5000, 18944])
def test_fp8_rows_held_in_registers(width):
    from bagel.model import triton_fp8

    gate_up = normal(70, 2 * width)
    found, twice = triton_fp8.swiglu(gate_up), triton_fp8.swiglu(gate_up, in_registers=1)
    assert torch.equal(found[0].view(torch.uint8), twice[0].view(torch.uint8))
    assert torch.equal(found[1], twice[1])


def test_fp8_products():
    from bagel.model import kernels
    from bagel.model.fp8 import Fp8Linear

    layer = Fp8Linear(torch.nn.Linear(512, 256, device=CUDA, dtype=torch.bfloat16))
    with torch.inference_mode():
        for rows, bound in ((1, 5e-3), (6, 5e-3), (300, 4e-2)):
            x = normal(rows, 512)
            wanted = x.double() @ layer.weight.wide(torch.float64).t() + layer.bias.double()
            assert distance(kernels.linear(x, layer.weight, layer.bias), wanted) < bound


def test_the_fused_update_of_masters():
    """Against the plain one: the same bits but for the order of a few additions; skipped steps change nothing."""
    from bagel.train import master, triton_master

    def columns():
        torch.manual_seed(3)
        weight = torch.randn(37, 133, device=CUDA).bfloat16()
        low = torch.randint(-(2**15), 2**15 - 1, (37, 133), dtype=torch.int16, device=CUDA)
        moments = normal(37, 133), normal(37, 133).abs()
        return [weight.t(), normal(133, 37), low.t(), moments[0].t(), moments[1].t()]

    for skip in (0.0, 1.0):
        numbers = torch.tensor([1e-2, 0.1, 0.3, 2.0, skip], device=CUDA)
        ours, plain = columns(), columns()
        before = master.joined(ours[0], ours[2])
        triton_master.update([ours], numbers, 0.9, 0.95, 1e-8, 0.01)
        master._update_all([plain], numbers, 0.9, 0.95, 1e-8, 0.01)
        changed = master.joined(ours[0], ours[2])
        assert distance(changed, master.joined(plain[0], plain[2])) < 1e-6
        assert torch.equal(changed, before) is bool(skip)
        assert distance(ours[3], plain[3]) < 1e-3
