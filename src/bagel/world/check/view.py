"""Is a picture the exact view that was expected, up to what an autoencoder blurs?

Two demands: no solid patch of the picture has another colour than the expected view, and the picture is nearer
to the expected view than to any other that a mistake would give (the view before the action, the wrong turn).
"""

import numpy as np
from scipy import ndimage

from ..goals import ViewGoal
from ..sample import pixels_of
from .verdict import Verdict, right, wrong

OFF = 50.0  # levels of colour difference from which a pixel counts as wrong
PATCH = 4  # wrong pixels must fill a square of this side to matter: edges may lie off by less
SHIFT = 10.0  # levels by which the whole picture may be tinted


def check_view(pixels: np.ndarray, goal: ViewGoal) -> Verdict:
    """Judge a uint8 RGB picture [128, 128, 3]."""
    expected = pixels_of(goal.state)
    off = difference(pixels, expected)
    solid = ndimage.minimum_filter(off, PATCH, mode="nearest") > OFF
    if solid.any():
        y, x = (int(k) for k in np.argwhere(solid)[0])
        return wrong(f"the view differs around ({x}, {y})")
    error = float((off**2).mean())
    for other in goal.others:
        if float((difference(pixels, pixels_of(other)) ** 2).mean()) < error:
            return wrong("the view is nearer to that of another action")
    return right("the expected view")


def difference(pixels: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Colour difference of each pixel in levels [H, W], after a little blur and without a common tint."""
    delta = ndimage.uniform_filter(pixels.astype(np.float32) - expected, (3, 3, 0), mode="nearest")
    tint = np.clip(np.median(delta.reshape(-1, 3), axis=0), -SHIFT, SHIFT)
    return np.linalg.norm(delta - tint, axis=2)
