"""The contestants: our purifier, and the same MDDA around other libraries' denoisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import cv2
import numpy as np

from edge_mdda.mdda.purifier import MddaParams, Purifier

PARAMS = MddaParams(
    scales=(2.0, 1.0, 0.5, 0.25),
    n_blocks=3,
    sigma=5.0,
    lam=5.0,
    iterations=3,
    output_weights=(0.20, 0.45, 0.25, 0.10),
)
"""The setting of the comparison: scales 2, 1, 1/2, 1/4, three blocks, sigma = lam = 5 grey levels."""

SEED = 1  # of the noise
GREY_MAX = 255  # grey levels
BREGMAN_WEIGHT_TIMES_LAM = 0.6
BREGMAN_ITERATIONS = 14
"""scikit-image's isotropic split Bregman shrinks a gradient ``s`` to ``s^2 / (s + 1 / (2 weight))`` instead of
``max(s - 1 / (2 weight), 0)``, so it converges beside the ROF optimum. Its equations are those of ``weight = 1 / lam``,
but the RMSE was least at 0.12 to 0.14 for lam = 5: 0.86 grey levels after 14 iterations, 0.84 at best after 100 (0.99
after 8; at 1 / lam never below 1.07). 14 are the fewest within 3 % of the best."""
TVL1_LAMBDA, TVL1_ITERATIONS = 1.0, 30  # OpenCV's defaults

Denoiser = Callable[[np.ndarray], np.ndarray]
"""(h, w, channels) float32 in grey levels to the same shape."""


@dataclass(frozen=True)
class Contestant:
    """One way to purify an image, ready to run.

    ``run`` takes the (size, size, 3) uint8 image. ``denoise`` is the denoiser inside, given where it solves the
    ROF model.
    """

    name: str
    title: str
    note: str
    run: Callable[[np.ndarray], np.ndarray]
    denoise: Denoiser | None = None


class PeerMdda:
    """MDDA as one would write it with NumPy and OpenCV, around any denoiser.

    Parameters
    ----------
    params : MddaParams
        ``iterations`` is not used: the denoiser has its own.
    denoise : callable
        (h, w, 3) float32 grey levels to the same.
    """

    def __init__(self, params: MddaParams, denoise: Denoiser) -> None:
        self.params, self.denoise = params, denoise
        self._base = params.scales.index(1.0)

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Purify a (h, w, 3) uint8 image; returns the same shape and type."""
        params, rng = self.params, np.random.default_rng(SEED)
        planes = self._pyramid(rgb.astype(np.float32))
        for block in range(params.n_blocks):
            sigma = np.float32(params.block_sigma(block))
            noisy = [p + sigma * rng.standard_normal(p.shape, np.float32) for p in planes]
            planes = self._aggregate([self.denoise(p) for p in noisy])
        return self._finish(planes)

    def _pyramid(self, image: np.ndarray) -> list[np.ndarray]:
        height, width = image.shape[:2]
        planes = [image]
        for _ in self.params.scales[self._base + 1 :]:
            h, w = planes[-1].shape[:2]
            planes.append(_resized(planes[-1], ((h + 1) // 2, (w + 1) // 2)))
        if self._base:
            planes.insert(0, _resized(image, (2 * height, 2 * width)))
        return planes

    def _aggregate(self, planes: list[np.ndarray]) -> list[np.ndarray]:
        mixed = []
        for scale, plane in enumerate(planes):
            finer, itself, coarser = self.params.neighbour_weights(scale)
            total = np.float32(itself) * plane
            if finer:
                total += np.float32(finer) * _resized(planes[scale - 1], plane.shape)
            if coarser:
                total += np.float32(coarser) * _resized(planes[scale + 1], plane.shape)
            mixed.append(total)
        return mixed

    def _finish(self, planes: list[np.ndarray]) -> np.ndarray:
        weights = np.array(self.params.output_weights, np.float32)
        weights /= weights.sum()
        shape = planes[self._base].shape
        blended = np.zeros(shape, np.float32)
        for weight, plane in zip(weights, planes, strict=True):
            blended += weight * _resized(plane, shape)
        side = self.params.smoothing / 4
        taps = np.array([side, 1 - 2 * side, side], np.float32)
        return _to_bytes(cv2.sepFilter2D(blended, -1, taps, taps, borderType=cv2.BORDER_REPLICATE))


def ours(size: int, threads: int = 1) -> Contestant:
    """Our purifier for images of one size, its workspace allocated.

    Parameters
    ----------
    size : int
        Side of the image in pixels.
    threads : int
        Threads to share the planes.
    """
    purifier = Purifier(size, size, PARAMS, threads)
    name = "ours" if threads == 1 else f"ours_{threads}_threads"
    title = "edge_mdda, 1 thread" if threads == 1 else f"edge_mdda, {threads} threads"
    return Contestant(name, title, f"{PARAMS.iterations} iterations", lambda rgb: purifier.purify(rgb, SEED))


def skimage_chambolle() -> Contestant:
    """scikit-image's Chambolle (2004) projection at its default tolerance; its ``weight`` is lam."""
    return _chambolle("skimage_chambolle", "default tolerance (2e-4, at most 200 iterations)")


def skimage_chambolle_equal(iterations: int) -> Contestant:
    """The same with a fixed number of iterations: as exact as ours, but no more."""
    name = "skimage_chambolle_equal"
    return _chambolle(
        name,
        f"{iterations} iterations, the most at which its mean RMSE is not below ours",
        eps=0.0,
        max_num_iter=iterations,
    )


def _chambolle(name: str, note: str, **options: float) -> Contestant:
    from skimage.restoration import denoise_tv_chambolle

    def denoise(noisy: np.ndarray) -> np.ndarray:
        return denoise_tv_chambolle(noisy, weight=PARAMS.scale_lam(0), channel_axis=-1, **options)

    title = f"MDDA on scikit-image {version('scikit-image')} Chambolle"
    return Contestant(name, title, note, PeerMdda(PARAMS, denoise), denoise)


def skimage_bregman() -> Contestant:
    """scikit-image's split Bregman; see :data:`BREGMAN_ITERATIONS` for its setting."""
    from skimage.restoration import denoise_tv_bregman

    weight = BREGMAN_WEIGHT_TIMES_LAM / PARAMS.scale_lam(0)

    def denoise(noisy: np.ndarray) -> np.ndarray:
        # eps below any change: exactly the stated number of iterations. It squeezes a single channel away.
        return denoise_tv_bregman(
            noisy, weight=weight, max_num_iter=BREGMAN_ITERATIONS, eps=1e-9, channel_axis=-1
        ).reshape(noisy.shape)

    title = f"MDDA on scikit-image {version('scikit-image')} Bregman"
    note = f"{BREGMAN_ITERATIONS} iterations, weight {weight:g}"
    return Contestant("skimage_bregman", title, note, PeerMdda(PARAMS, denoise), denoise)


def opencv_tvl1() -> Contestant:
    """OpenCV's primal-dual TV-L1 on rounded planes: another model (absolute instead of squared distance)."""
    if not hasattr(cv2, "denoise_TVL1"):
        raise ImportError("this OpenCV was built without its photo module")
    cv2.setNumThreads(1)

    def denoise(noisy: np.ndarray) -> np.ndarray:
        out = np.empty_like(noisy)
        for channel in range(noisy.shape[2]):
            observed = _to_bytes(noisy[..., channel])
            result = np.empty_like(observed)
            cv2.denoise_TVL1([observed], result, TVL1_LAMBDA, TVL1_ITERATIONS)
            out[..., channel] = result
        return out

    note = f"another model (TV-L1) on 8-bit planes; its defaults, lambda {TVL1_LAMBDA:g}, {TVL1_ITERATIONS} iterations"
    return Contestant("opencv_tvl1", f"MDDA on OpenCV {cv2.__version__} TVL1", note, PeerMdda(PARAMS, denoise))


def art_totalvarmin() -> Contestant:
    """ART's ``TotalVarMin`` with its defaults, once, at scale 1, with no MDDA around it."""
    from art.defences.preprocessor import TotalVarMin

    defence = TotalVarMin(clip_values=(0.0, 1.0))

    def run(rgb: np.ndarray) -> np.ndarray:
        cleaned, _ = defence(rgb[None].astype(np.float32) / GREY_MAX)
        return _to_bytes(cleaned[0] * GREY_MAX)

    title = f"ART {version('adversarial-robustness-toolbox')} TotalVarMin"
    note = "plain TV of the image alone, no MDDA around it (which flatters it), another model; its defaults"
    return Contestant("art_totalvarmin", title, note, run)


PEERS: dict[str, Callable[[], Contestant]] = {
    "skimage_chambolle": skimage_chambolle,
    "skimage_bregman": skimage_bregman,
    "opencv_tvl1": opencv_tvl1,
    "art_totalvarmin": art_totalvarmin,
}
"""Makers by name; one raises ImportError where its library is not installed."""


def make(name: str, size: int) -> Contestant:
    """The contestant of this name (a child process knows no more than that).

    Parameters
    ----------
    name : str
        ``ours``, ``ours_<n>_threads``, ``skimage_chambolle_equal:<iterations>`` or a key of :data:`PEERS`.
    size : int
        Side of the image in pixels.
    """
    if name == "ours":
        return ours(size)
    if name.startswith("ours_"):
        return ours(size, int(name.split("_")[1]))
    if ":" in name:
        return skimage_chambolle_equal(int(name.split(":")[1]))
    return PEERS[name]()


def _resized(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``plane`` at another size: box means when shrinking, bilinear when growing; itself when it fits."""
    if plane.shape[:2] == shape[:2]:
        return plane
    method = cv2.INTER_AREA if shape[0] < plane.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(plane, (shape[1], shape[0]), interpolation=method)


def _to_bytes(grey: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(grey, 0, GREY_MAX)).astype(np.uint8)
