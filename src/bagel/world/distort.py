"""A stand-in for an autoencoder: blurred, rung, noisy, compressed, shifted copies of a picture.

The checkers must read such copies as they read the clean picture; the tests say how often they do.
"""

from io import BytesIO

import numpy as np
from PIL import Image
from scipy import ndimage


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur in the plane, not across channels; float."""
    return ndimage.gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0))


def ring(pixels: np.ndarray, keep: float) -> np.ndarray:
    """Cut the frequencies above `keep` (a share of the Nyquist limit) sharply, which rings at edges."""
    spectrum = np.fft.rfft2(pixels.astype(np.float32), axes=(0, 1))
    fy = abs(np.fft.fftfreq(pixels.shape[0]))[:, None, None]
    fx = np.fft.rfftfreq(pixels.shape[1])[None, :, None]
    return np.fft.irfft2(spectrum * (np.maximum(fy, fx) <= keep / 2), pixels.shape[:2], axes=(0, 1))


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """There and back through JPEG."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def imitate_autoencoder(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`pixels` uint8 [H, W, 3] as a lossy autoencoder might give them back; the strength varies from call to call."""
    x = blur(pixels, rng.uniform(0.6, 1.0))
    mix = rng.uniform(0, 0.7)
    x = (1 - mix) * x + mix * ring(pixels, rng.uniform(0.45, 0.7))
    x = x + rng.normal(0, rng.uniform(2, 6), pixels.shape) + rng.uniform(-8, 8, 3)
    out = _bytes(x)
    return jpeg(out, int(rng.integers(60, 90))) if rng.random() < 0.7 else out
