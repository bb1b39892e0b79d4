"""Attention over runs equals attention with the mask, forward and backward, for layouts of every kind."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from bagel.model import varlen
from bagel.model.attention import QKV, PackAttention, RunAttention
from bagel.runs import MAX_LISTED, PackRuns, list_copies
from bagel.sequence import Kind, Layout, Segment

N, M, H = 4, 2, 8
CUDA = torch.cuda.is_available()


def segments(rng: random.Random) -> list[Segment]:
    """Texts, pictures seen, clean and noised latents, clips of joined frames, hidden or not."""
    made: list[Segment] = []
    for _ in range(rng.randint(1, 7)):
        kind = rng.choice(list(Kind))
        made.append(Segment(kind, 0 if rng.random() < 0.1 else rng.randint(3, 9)))
        while kind.is_latent and rng.random() < 0.3:
            made.append(Segment(kind, rng.randint(3, 6), joined=True))
    return made


def heads(layout: Layout, seed: int) -> tuple[QKV, QKV]:
    generator = torch.Generator().manual_seed(seed)
    und, gen = layout.num_und, len(layout) - layout.num_und

    def qkv(count: int) -> QKV:
        return QKV(*(torch.randn(count, n, H, generator=generator, requires_grad=True) for n in (N, M, M)))

    return qkv(und), qkv(gen)


def received(attend: RunAttention | PackAttention, und: QKV, gen: QKV) -> list[Tensor]:
    out = torch.cat(attend(0, und, gen))
    weights = torch.arange(out.numel(), device=out.device).view_as(out).cos().to(out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [*und, *gen], allow_unused=True)]


@pytest.mark.parametrize("seed", range(25))
def test_runs_equal_the_mask(seed):
    rng = random.Random(seed)
    layout = Layout.of([segments(rng) for _ in range(rng.randint(1, 5))])
    runs = PackRuns.of(layout)
    if runs is None:  # a layout with more copies than are worth it
        pytest.skip("no runs")
    und, gen = heads(layout, seed)
    ours = received(RunAttention(runs), und, gen)
    wanted = received(PackAttention(layout, flex=False), und, gen)
    for found, expected in zip(ours, wanted, strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kinds", [[Kind.TEXT], [Kind.VIT], [Kind.NOISED]])
@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not CUDA, reason="needs a GPU")])]
)
def test_packs_of_one_kind(kinds, device):
    """Text alone has no full runs, pictures alone no causal ones; a kernel must not be asked about nothing."""
    layout = Layout.of([[Segment(kind, 9) for kind in kinds] for _ in range(2)])
    runs = PackRuns.of(layout)
    assert runs is not None
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    und, gen = (QKV(*(x.detach().to(device, dtype).requires_grad_() for x in qkv)) for qkv in heads(layout, 0))
    ours = received(RunAttention(runs.to(device)), und, gen)
    wanted = received(PackAttention(layout.to(device), flex=False), und, gen)
    bound = {"rtol": 1e-4, "atol": 1e-5} if device == "cpu" else {"rtol": 0.05, "atol": 0.05}
    for found, expected in zip(ours, wanted, strict=True):
        if expected is not None:
            torch.testing.assert_close(found, expected, **bound)


def test_what_runs_hold():
    """Text, a picture, a noised picture, two texts that are one run, and a second sample."""
    text, seen, noised = Segment(Kind.TEXT, 4), Segment(Kind.VIT, 5), Segment(Kind.NOISED, 6)
    layout = Layout.of([[text, seen, noised, text, Segment(Kind.TEXT, 3)], [text]])
    runs = PackRuns.of(layout)
    assert runs is not None
    assert runs.full.query_ends.tolist() == [0, 5, 11]
    assert runs.full.key_ends.tolist() == [0, 9, 24]  # text and picture; text, picture and itself
    assert runs.causal.query_ends.tolist() == [0, 4, 11, 15]
    assert runs.causal.key_ends.tolist() == [0, 4, 20, 24]  # the noised picture is seen by none of the texts
    assert (runs.full.longest_query, runs.full.longest_key) == (6, 15)
    assert (runs.num_full, runs.num_full_keys) == (11, 24)
    assert runs.order[runs.place].tolist() == list(range(len(layout)))
    ends = runs.copy_ends.tolist()
    assert ends[1] == 4  # the first text is seen by itself, both pictures, and the later texts
    for row, (first, last) in enumerate(itertools.pairwise(ends)):
        assert runs.copies[first:last].tolist() == (runs.keys == row).nonzero()[:, 0].tolist()


def test_too_many_copies_are_left_to_the_mask():
    pictures = [Segment(Kind.VIT, 3) for _ in range(4 * MAX_LISTED)]
    assert PackRuns.of(Layout.of([pictures])) is None


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
def test_gradient_of_listed_keys(dtype, rounding):
    """Rows listed never, once and up to 40 times against PyTorch's own gradient in float64, rounded once; twice the
    same bits."""
    keys = np.random.default_rng(0).permutation(np.repeat(np.arange(5), (0, 1, 40, 3, 0)))
    copies, copy_ends = map(torch.from_numpy, list_copies(keys, 5))
    any_runs = PackRuns.of(Layout.of([[Segment(Kind.TEXT, 2)]]))
    assert any_runs is not None
    runs = replace(any_runs, keys=torch.from_numpy(keys), copies=copies, copy_ends=copy_ends)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, M, H, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(len(keys), M, H, generator=generator).to(dtype)
    found, again = (torch.autograd.grad(varlen.list_keys(x, runs), x, weight)[0] for _ in range(2))
    assert found.dtype == dtype
    assert torch.equal(found, again)
    exact = x.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad(exact[runs.keys], exact, weight.double())
    torch.testing.assert_close(found.double(), wanted, rtol=rounding, atol=1e-5)


def test_the_operators_are_sound():
    """Shapes, strides and gradients as PyTorch checks them."""
    for segments_ in ([Segment(Kind.TEXT, 5), Segment(Kind.VIT, 3), Segment(Kind.NOISED, 4)], [Segment(Kind.TEXT, 5)]):
        runs = PackRuns.of(Layout.of([segments_]))
        assert runs is not None
        lengths = ((len(runs.order), N), (len(runs.keys), M), (len(runs.keys), M))
        q, k, v = (torch.randn(length, heads, H, requires_grad=True) for length, heads in lengths)
        torch.library.opcheck(varlen._attention, (q, k, v, *varlen.RunGroups.of_pack(runs)))
    copies, copy_ends = map(torch.from_numpy, list_copies(np.array([2, 0, 2]), 3))
    torch.library.opcheck(varlen._sum_copies, (torch.randn(3, M, H), copies, copy_ends))
