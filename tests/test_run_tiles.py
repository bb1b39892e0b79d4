"""Tiles of attention over runs: chosen without a GPU."""

import pytest

from bagel.model import run_tiles
from bagel.model.run_tiles import Shape


@pytest.mark.parametrize(
    ("head_width", "columns"),
    [(8, (16, 0)), (32, (32, 0)), (72, (64, 16)), (80, (64, 16)), (96, (64, 32)), (128, (128, 0))],
)
def test_columns_hold_the_head(head_width: int, columns: tuple[int, int]) -> None:
    assert run_tiles.widths(head_width) == columns
    assert sum(columns) >= head_width


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("longest", [40, 2000])
@pytest.mark.parametrize("width", [64, 128])
def test_cards_with_little_shared_memory_have_small_tiles(
    width: int, longest: int, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an RTX 4090 has: a queries' pass keeps queries, gradients, and keys and values for each stage."""

    def kept(shape: Shape) -> int:
        return 2 * width * (2 * shape.queries + 2 * shape.keys * shape.stages)

    monkeypatch.setattr(run_tiles, "_shared_memory", lambda: 101_376)
    assert kept(run_tiles.shapes(width, longest, longest, causal)[0]) <= 101_376
    forward = run_tiles.forward_shape(width, longest, causal)
    assert 2 * width * (forward.queries + 2 * forward.keys * forward.stages) <= 101_376
    monkeypatch.setattr(run_tiles, "_shared_memory", lambda: 232_448)
    large = run_tiles.shapes(128, 2000, 2000, causal)[0]
    assert large == (Shape(64, 128, 4, 2) if causal else Shape(128, 64, 8, 3))
