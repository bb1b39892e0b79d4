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
PATCH = 5  # wrong pixels must fill a square of this side to matter: edges may lie off by two pixels and be soft
SHIFT = 10.0  # levels by which the whole picture may be tinted
TELLS = 30  # two views that differ in fewer pixels are the same view
NEARER = 0.15  # how clearly nearer to a mistake counts: 1 is the mistake itself, -1 the expected view, 0 between


def check_view(pixels: np.ndarray, goal: ViewGoal) -> Verdict:
    """Judge a uint8 RGB picture [128, 128, 3]."""
    expected = pixels_of(goal.state)
    off = difference(pixels, expected)
    verdict = _check_flat(pixels, off, goal.state) if isinstance(goal.state, Scene) else _check_patches(off)
    if not verdict:
        return verdict
    for other in goal.others:
        mistaken = pixels_of(other)
        apart = np.linalg.norm(expected.astype(np.float32) - mistaken, axis=2)
        telling = apart > OFF
        nearer = (off**2 - difference(pixels, mistaken) ** 2)[telling]
        if telling.sum() >= TELLS and nearer.mean() > NEARER * (apart[telling] ** 2).mean():
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
    """Colour difference of each pixel in levels [H, W], without a common tint."""
    delta = pixels.astype(np.float32) - expected
    tint = np.clip(np.median(delta.reshape(-1, 3), axis=0), -SHIFT, SHIFT)
    return np.linalg.norm(delta - tint, axis=2)
