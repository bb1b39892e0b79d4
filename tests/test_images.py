"""Pictures in: every mode and format, and files that are none. Patches, and back."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from bagel import InputError
from bagel.images import MAX_PIXELS, open_image, patch_index, patchify, resized_size, to_image, to_pixels, unpatchify
from bagel.model.config import ResizeRule

VAE, VIT = ResizeRule(max_size=1024, min_size=512, stride=16), ResizeRule(max_size=980, min_size=224, stride=14)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(width: int = 60, height: int = 40) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def palette(*colours: tuple[int, int, int]) -> Image.Image:
    image = Image.new("P", (4, 4), len(colours) - 1)
    image.putpalette([level for colour in colours for level in colour])
    return image


MODES = [
    (Image.new("1", (4, 4), 1), (255, 255, 255)),
    (Image.new("L", (4, 4), 77), (77, 77, 77)),
    (Image.new("LA", (4, 4), (77, 0)), (255, 255, 255)),
    (Image.new("LA", (4, 4), (77, 255)), (77, 77, 77)),
    (palette((0, 0, 0), (200, 100, 50)), (200, 100, 50)),
    (Image.new("RGBA", (4, 4), (10, 20, 30, 0)), (255, 255, 255)),
    (Image.new("RGBA", (4, 4), (0, 0, 0, 128)), (127, 127, 127)),
    (Image.new("I;16", (4, 4), 40_000), (156, 156, 156)),
    (Image.new("RGB", (4, 4), (1, 2, 3)), (1, 2, 3)),
]


@pytest.mark.parametrize(("image", "colour"), MODES, ids=lambda x: getattr(x, "mode", ""))
def test_modes_from_file_and_from_memory(image, colour):
    for source in (image, encoded(image)):
        found = open_image(source)
        assert found.mode == "RGB"
        assert found.size == (4, 4)
        assert found.getpixel((0, 0)) == colour


@pytest.mark.parametrize("mode", ["La", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16B"])
def test_modes_that_no_png_has(mode):
    assert open_image(Image.new(mode, (4, 4))).mode == "RGB"


def test_cmyk_jpeg():
    assert open_image(encoded(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG")).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_transparent_palette_is_white(transparency):
    image = palette((0, 0, 0), (200, 100, 50))
    assert open_image(encoded(image, transparency=transparency)).getpixel((0, 0)) == (255, 255, 255)


def test_transparent_colour_is_white():
    image = Image.new("RGB", (4, 4), (9, 9, 9))
    assert open_image(encoded(image, transparency=(9, 9, 9))).getpixel((0, 0)) == (255, 255, 255)


def test_first_frame_of_what_moves():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    for kind in ("GIF", "PNG", "WEBP"):
        red, _, blue = open_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:])).getpixel((0, 0))
        assert red > 200 > 60 > blue, kind


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turn_is_undone(turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    image = noise(48, 32).resize((480, 320))
    found = open_image(encoded(image, "JPEG", exif=exif, quality=95))
    assert found.size == ((480, 320) if turn < 5 else (320, 480))
    undone = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}[turn]  # Pillow's numbers of transposes
    wanted = image if undone is None else image.transpose(Image.Transpose(undone))
    assert np.abs(np.array(found).astype(int) - np.array(wanted)).mean() < 4


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage!!", b"Exif\0\0II*\0\xff\xff\xff\x7f"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_says_nothing_of_the_picture(exif):
    assert open_image(encoded(noise(), "JPEG", exif=exif)).size == (60, 40)


def test_names_in_any_script(tmp_path):
    for name in ("图片.png", "кот.png", "with blank.png", "naïve 🎈.png"):
        (tmp_path / name).write_bytes(encoded(noise()))
        for path in (tmp_path / name, str(tmp_path / name)):
            assert open_image(path).size == (60, 40)


# --- what is no picture ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.95])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_cut_off_files(kind, share, tmp_path):
    whole = encoded(noise(200, 200), kind)
    cut = whole[: int(len(whole) * share)]
    (tmp_path / "cut.img").write_bytes(cut)
    for source in (cut, tmp_path / "cut.img"):
        with pytest.raises(InputError, match=r"damaged|not a picture"):
            open_image(source)


def test_cut_off_picture_opened_by_the_user():
    whole = encoded(noise(200, 200))
    with pytest.raises(InputError, match="damaged"):
        open_image(Image.open(io.BytesIO(whole[: len(whole) // 2])))


@pytest.mark.parametrize("content", [b"hello", b"<svg></svg>", b"\0" * 100, b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"])
def test_other_files(content):
    with pytest.raises(InputError, match=r"not a picture|damaged"):
        open_image(content)


def test_empty_missing_and_folders(tmp_path):
    (tmp_path / "empty.png").touch()
    for source, says in (
        (b"", "empty"),
        (tmp_path / "empty.png", r"empty.png is empty \(0 bytes\)"),
        (tmp_path / "nowhere.png", "nowhere.png.*No such file"),
        (tmp_path, "directory"),
        ("a" * 300 + ".png", "too long"),
        ("a\0.png", "null byte"),
        (Image.new("RGB", (0, 0)), "no pixels"),
    ):
        with pytest.raises(InputError, match=says):
            open_image(source)


@pytest.mark.parametrize("source", [None, 3, io.BytesIO(b"x"), np.zeros((4, 4, 3), np.uint8), ["a.png"]])
def test_other_types(source):
    with pytest.raises(InputError, match=f"a picture is of type {type(source).__name__}; give a path"):
        open_image(source)


def bomb(width: int, height: int) -> bytes:
    """A PNG of under a hundred bytes that claims to be this large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 20_000), (12_000, 11_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bombs_are_not_unpacked(size, monkeypatch):
    monkeypatch.setattr(Image.core, "new", None)  # nothing is allocated for the pixels
    with pytest.raises(InputError, match="at most 128 million are decoded"):
        open_image(bomb(*size))


# --- sizes and patches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [VAE, VIT])
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 70_000), (9999, 10_000), (640, 427)])
def test_any_shape_gets_a_legal_size(size, rule):
    width, height = resized_size(*size, rule)
    assert width % rule.stride == height % rule.stride == 0
    assert rule.stride <= min(width, height)
    assert max(width, height) <= rule.max_size
    assert width * height <= MAX_PIXELS


def test_extreme_pictures_go_through_the_model(bagel):
    for size, wanted in (((1, 5000), (16, 128)), ((5000, 1), (128, 16)), ((1, 1), (64, 64))):
        image = Image.new("RGB", size, (200, 30, 30))
        assert bagel.edit(image, "x", num_timesteps=2, seed=1).image.size == wanted
        assert bagel.chat([image, "x"], max_tokens=2).token_ids


@pytest.mark.parametrize(
    ("channels", "side", "grid"), [(3, 14, (2, 5)), (16, 2, (7, 3)), (4, 1, (3, 3)), (1, 3, (1, 1))]
)
def test_patches_and_back(channels, side, grid):
    pixels = torch.randn(channels, grid[0] * side, grid[1] * side)
    patches = patchify(pixels, side)
    assert patches.shape == (grid[0] * grid[1], side * side * channels)
    assert torch.equal(unpatchify(patches, grid, side), pixels)
    # Row by row, and inside a patch the channel last.
    assert torch.equal(patches[-1].reshape(side, side, channels), pixels[:, -side:, -side:].permute(1, 2, 0))


def test_pixels_and_back():
    image = noise()
    found = to_image(to_pixels(image))
    assert np.abs(np.array(found).astype(int) - np.array(image)).max() <= 1  # levels are truncated


def test_levels_are_truncated_and_clamped():
    pixels = torch.tensor([-3.0, -1.0, 0.0, 0.999, 3.0])[None, None].expand(3, 1, 5)
    assert np.array(to_image(pixels))[0, :, 0].tolist() == [0, 0, 127, 254, 255]


def test_positions_of_a_grid():
    assert patch_index((2, 3), 70).tolist() == [0, 1, 2, 70, 71, 72]
    assert patch_index((2, 2), 4, True).tolist() == [0, 2, 8, 10]
