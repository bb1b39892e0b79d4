"""Colours of the world, as RGB in 0..255, apart enough that a blurred, shifted, noisy picture still tells them.

Shapes and backgrounds never share a colour, so a shape always stands out from what is behind it.
"""

import numpy as np

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 215, 50),
    "green": (40, 150, 60),
    "cyan": (50, 195, 210),
    "blue": (40, 80, 200),
    "purple": (125, 50, 165),
    "pink": (250, 110, 180),
    "brown": (120, 72, 36),
}

BACKGROUNDS: dict[str, RGB] = {
    "white": (246, 246, 246),
    "grey": (158, 158, 158),
    "black": (26, 26, 26),
    "beige": (235, 218, 184),
    "sky": (186, 216, 242),
    "mint": (190, 232, 200),
}

# Solid things (blocks, things in a room) show darker faces; these six stay apart under shading too.
SOLID_COLOURS = ("red", "yellow", "green", "cyan", "blue", "purple")
WALLS: dict[str, RGB] = {
    "coral": (226, 130, 120),
    "sand": (228, 208, 140),
    "moss": (110, 150, 90),
    "slate": (95, 115, 175),
}
FLOOR: RGB = (72, 68, 66)
CEILING: RGB = (240, 242, 245)
PLATE: RGB = (222, 222, 226)
TABLE: RGB = (246, 246, 246)


def shade(rgb: RGB, light: float) -> RGB:
    """`rgb` under `light` in 0..1."""
    r, g, b = rgb
    return round(r * light), round(g * light), round(b * light)


def nearest(rgb: np.ndarray, table: dict[str, RGB]) -> tuple[str, float]:
    """The name in `table` closest to `rgb` [3], and the Euclidean distance to it in levels."""
    names = list(table)
    distance = np.linalg.norm(np.array([table[name] for name in names], float) - rgb, axis=1)
    best = int(distance.argmin())
    return names[best], float(distance[best])
