"""The rules of a sequence, drawn."""

import pytest
import torch

from bagel.pack import DroppedImage, LatentPart, PackRules, TextPart, VitPart, pack
from bagel.sequence import Kind, Layout, Segment, visible

RULES = PackRules(start_of_image=1, end_of_image=2, vit_side=70, latent_side=64)


def drawn(layout):
    place = layout.order.argsort()
    seen = visible(layout, layout)[place][:, place]
    return ["".join("x" if s else "." for s in row) for row in seen.tolist()]


def test_noised_image_is_seen_only_by_itself():
    layout = Layout.of([[Segment(Kind.TEXT, 2), Segment(Kind.NOISED, 3), Segment(Kind.TEXT, 2)]])
    assert drawn(layout) == ["x......", "xx.....", "xxxxx..", "xxxxx..", "xxxxx..", "xx...x.", "xx...xx"]
    assert layout.position[layout.order.argsort()].tolist() == [0, 1, 2, 2, 2, 2, 3]


def test_images_use_one_position_and_noised_ones_none():
    segments = [Segment(Kind.TEXT, 3), Segment(Kind.VIT, 4), Segment(Kind.NOISED, 4), Segment(Kind.CLEAN, 4)]
    layout = Layout.of([segments, [Segment(Kind.TEXT, 2)]], start=[5, 0])
    positions = layout.position[layout.order.argsort()].tolist()
    assert positions == [5, 6, 7] + [8] * 4 + [9] * 4 + [9] * 4 + [0, 1]


def test_samples_do_not_see_each_other():
    layout = Layout.of([[Segment(Kind.TEXT, 2)], [Segment(Kind.CLEAN, 3)]])
    assert drawn(layout) == ["x....", "xx...", "..xxx", "..xxx", "..xxx"]


def test_experts_are_slices_and_markers_are_und():
    layout = Layout.of([[Segment(Kind.TEXT, 2), Segment(Kind.CLEAN, 4)], [Segment(Kind.VIT, 3)]])
    assert layout.num_und == 2 + 2 + 3
    assert layout.order.tolist() == [0, 1, 2, 5, 6, 7, 8, 3, 4]
    assert [(s.und, s.gen) for s in layout.spans] == [
        (slice(0, 2), slice(0, 0)),
        (slice(2, 4), slice(0, 2)),
        (slice(4, 7), slice(2, 2)),
    ]


def test_dropped_image_takes_a_position_and_no_tokens():
    parts = [DroppedImage(), TextPart([5, 6])]
    inputs = pack([parts], RULES)
    assert len(inputs.layout) == 2
    assert inputs.layout.position.tolist() == [1, 2]


def test_frames_of_a_clip_are_one_full_segment():
    frames = [
        LatentPart(torch.zeros(2, 64), (1, 2), 0.5, noised=True, advance=3, hidden=False),
        LatentPart(torch.zeros(2, 64), (1, 2), 0.5, noised=True, joined=True),
    ]
    layout = pack([[*frames, TextPart([5])]], RULES).layout
    assert layout.position[layout.order.argsort()].tolist() == [0] * 4 + [3] * 4 + [3]
    assert drawn(layout)[:8] == ["xxxxxxxx."] * 8
    assert drawn(layout)[8] == "xxxxxxxxx"


@pytest.mark.parametrize(
    ("part", "limit"),
    [(VitPart(torch.zeros(71, 588), (1, 71)), "70"), (LatentPart(torch.zeros(65, 64), (65, 1)), "64")],
)
def test_picture_beyond_the_position_table_is_refused(part, limit):
    with pytest.raises(ValueError, match=f"table, {limit} a side"):
        pack([[part]], RULES)
