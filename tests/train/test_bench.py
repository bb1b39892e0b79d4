"""The benchmark of training runs, counts what it should, and knows kernels by their names."""

from __future__ import annotations

import json

import pytest

from bagel.bench.account import kind_of
from bagel.errors import DeviceError, InputError
from bagel.train.bench import BenchOptions, bench
from bagel.train.bench.__main__ import main
from bagel.train.bench.shapes import Mix, make_pack, model_config
from bagel.train.bench.where import KINDS
from bagel.train.log import flops


def test_the_pack_is_the_one_that_the_official_code_was_measured_with():
    config = model_config(lora=False, smoke=False)
    pack = make_pack(config, Mix.of(lora=False, smoke=False), 0)
    assert 17_550 < len(pack) < 17_650
    assert 176e12 < flops(config, pack) < 180e12  # 1.14 s at 156 TFLOP/s
    assert len(pack.picture_sizes) == 9
    large = model_config(lora=True, smoke=False)
    assert 16_000 < len(make_pack(large, Mix.of(lora=True, smoke=False), 1)) < 17_000


def test_smoke(tmp_path, capsys):
    path = tmp_path / "bench.json"
    assert main(["--cpu-smoke", "--steps", "2", "--warmup", "1", "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    row = json.loads(path.read_text())["rows"][0]
    assert row["tokens_per_second"] > 0
    assert row["where"]["products"] > 0
    assert "eager-none" in shown
    assert "ceilings" in shown


@pytest.mark.slow
def test_smoke_from_files():
    row = bench(BenchOptions(smoke=True, steps=2, warmup=1, profile=False, loader=True, workers=0))["rows"][0]
    assert row["fed"]["tokens_per_second"] > 0
    assert 0 <= row["fed"]["data_wait"] <= 1


def test_smoke_of_lora():
    results = bench(BenchOptions(lora=True, smoke=True, steps=2, warmup=1, profile=False, rank=2))
    row = results["rows"][0]
    assert 0 < row["trained_parameters"] < 200_000
    assert "adapters" in row["note"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "VAE (convolutions and norms)"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("triton_tem_fused_flex_attention_backward_1", "attention"),
        ("triton_red_fused__to_copy_mul_pow_rsqrt_0", "elementwise"),
        ("void at::native::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimiser"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("ncclDevKernel_AllGather_RING_LL", "sums between ranks"),
    ],
)
def test_kinds_of_kernels(kernel, kind):
    assert kind_of(kernel, KINDS) == kind


def test_wrong_options(monkeypatch):
    with pytest.raises(InputError, match="at least 2"):
        bench(BenchOptions(smoke=True, steps=1))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceError, match="--cpu-smoke"):
        bench(BenchOptions())
