"""Is a picture the exact view that was expected, up to what an autoencoder blurs?

Two demands: no solid patch of the picture has another colour than the expected view, and the picture is nearer
to the expected view than to any other that a mistake would give (the view before the action, the wrong turn).
"""

import numpy as np
from scipy import ndimage

from ..goals import ViewGoal, scene_goal
from ..sample import pixels_of
from ..scene import Scene
from .scene import check_scene
from .segment import segment
from .verdict import Verdict, right, wrong

OFF = 50.0  # levels of colour difference from which a pixel counts as wrong
PATCH = 4  # wrong pixels must fill a square of this side to matter: edges may lie off by less
SHIFT = 10.0  # levels by which the whole picture may be tinted
TELLS = 30  # two views that differ in fewer pixels are the same view


def check_view(pixels: np.ndarray, goal: ViewGoal) -> Verdict:
    """Judge a uint8 RGB picture [128, 128, 3]."""
    expected = pixels_of(goal.state)
    off = difference(pixels, expected)
    verdict = _check_flat(pixels, off, goal.state) if isinstance(goal.state, Scene) else _check_patches(off)
    if not verdict:
        return verdict
    for other in goal.others:
        mistaken = pixels_of(other)
        telling = np.linalg.norm(expected.astype(np.float32) - mistaken, axis=2) > OFF
        if telling.sum() >= TELLS and (difference(pixels, mistaken) ** 2 - off**2)[telling].mean() < 0:
            return wrong("the view is nearer to that of a mistake")
    return right("the expected view")


def _check_flat(pixels: np.ndarray, off: np.ndarray, scene: Scene) -> Verdict:
    """Upright things are recognised one by one, which is stricter than patches; turned ones cannot be."""
    if not any(thing.angle for thing in scene.things):
        return check_scene(pixels, scene_goal(scene))
    background = segment(pixels).background
    if background != scene.background:
        return wrong(f"the background is {background}, not {scene.background}")
    return _check_patches(off)


def _check_patches(off: np.ndarray) -> Verdict:
    """No PATCH x PATCH square may be wrong throughout."""
    solid = ndimage.minimum_filter(off, PATCH, mode="nearest") > OFF
    if not solid.any():
        return right()
    y, x = (int(k) for k in np.argwhere(solid)[0])
    return wrong(f"the view differs around ({x}, {y})")


def difference(pixels: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Colour difference of each pixel in levels [H, W], after a little blur and without a common tint."""
    delta = ndimage.uniform_filter(pixels.astype(np.float32) - expected, (3, 3, 0), mode="nearest")
    tint = np.clip(np.median(delta.reshape(-1, 3), axis=0), -SHIFT, SHIFT)
    return np.linalg.norm(delta - tint, axis=2)
