"""Defences side by side: each maps an image and a seed to an image of the same size, before the network sees it.

The competitors' strengths were not left at a weak default: :mod:`benchmarks.robustness.choose_defences` judged every
candidate on ``val`` and wrote the best ones to ``strengths.json``.

None of these defences withstands an attacker who knows it and optimises through it: what is not differentiable is
passed over with the identity or a blur, and what is random is averaged over (Athalye, Carlini, Wagner, ICML 2018). None
of them notices a replaced picture or a large visible patch. What else each one does not withstand stands in the
docstring of the function that makes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edge_mdda.mdda.purifier import PRESETS, MddaParams, Purifier
from export.dataset import SIDE

GREY_MAX = 255  # grey levels

STRENGTHS_FILE = Path(__file__).with_name("strengths.json")
STRENGTHS: dict[str, dict[str, Any]] = json.loads(STRENGTHS_FILE.read_text(encoding="utf-8"))["strengths"]
"""Keyword arguments of each competitor's function."""
NLM_SEARCH, NLM_PATCH = 11, 3  # pixels a side, as in feature squeezing's 11-3-4
TVM_FILL_SIGMA = 1.0  # pixels, of the first guess at what was dropped
TVM_ROUNDS, TVM_ITERATIONS = 4, 10
ROF_ITERATIONS = 20

Apply = Callable[[np.ndarray, int], np.ndarray]
"""(224, 224, 3) uint8 RGB, C-contiguous, and a seed from 0 to 2**53 - 1, to the same shape and type."""


@dataclass(frozen=True)
class Defence:
    """One defence, not yet opened.

    Attributes
    ----------
    name : str
        Key in :data:`DEFENCES`.
    label : str
        For tables and figures; says "(ours)" where the weights are not the authors'.
    source : str
        The paper that proposed it.
    open : callable
        Loads what it needs and returns the defence; the result is for one thread at a time.
    """

    name: str
    label: str
    source: str
    open: Callable[[], Apply]


def _to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Grey levels to uint8, rounded and clipped."""
    return np.clip(np.rint(pixels), 0, GREY_MAX).astype(np.uint8)


def none() -> Apply:
    """The image as it is. Withstands nothing but what the network itself withstands."""
    return lambda image, seed: image


def bdr(bits: int) -> Apply:
    """Bit-depth reduction: round every value to ``2**bits`` levels.

    Does not withstand: any attack that moves a value across a rounding border, which is most of them from about half
    a step (255 / 2**bits / 2) on; gradients pass through with the identity.
    """
    top = 2**bits - 1
    levels = np.rint(np.rint(np.arange(GREY_MAX + 1) / GREY_MAX * top) / top * GREY_MAX).astype(np.uint8)
    return lambda image, seed: levels[image]


def jpeg(quality: int) -> Apply:
    """JPEG there and back; ``quality`` of 100.

    Does not withstand: perturbations of low frequency, which survive the quantisation (universal ones, stickers, large
    eps), and an attack through a differentiable JPEG.
    """
    import cv2

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        good, coded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
        assert good and decoded is not None
        return np.ascontiguousarray(decoded[..., ::-1])

    return apply


def median(side: int) -> Apply:
    """Median of ``side`` x ``side`` pixels in each channel.

    Does not withstand: perturbations that are smooth over its window; it removes single pixels and leaves the rest.
    """
    import cv2

    return lambda image, seed: np.asarray(cv2.medianBlur(image, side))


def gaussian(sigma: float) -> Apply:
    """Gaussian blur; ``sigma`` in pixels.

    Does not withstand: any attack that takes the blur into its gradient (it is linear and has no randomness), nor
    perturbations of low frequency even if the attacker does not know of it.
    """
    import cv2

    return lambda image, seed: cv2.GaussianBlur(image, (0, 0), sigma)


def nlm(strength: float, search: int = NLM_SEARCH, patch: int = NLM_PATCH) -> Apply:
    """Non-local means on lightness and colour, OpenCV's ``fastNlMeansDenoisingColored``; ``strength`` in grey levels.

    Does not withstand: perturbations that repeat or follow the image's own structure, and any perturbation stronger
    than ``strength``, which it takes for texture and keeps.
    """
    import cv2

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        found = cv2.fastNlMeansDenoisingColored(image[..., ::-1].copy(), None, strength, strength, patch, search)
        return np.ascontiguousarray(found[..., ::-1])

    return apply


def tvm(kept: float, lam: float) -> Apply:
    """Total-variation minimisation: drop values at random and fill them in with the least total variation.

    Minimises ``|mask (u - image)|^2 / (2 lam) + TV(u)``; ``kept`` is the share of the values that survive the dropout,
    ``lam`` in grey levels. Each of ``TVM_ROUNDS`` rounds fills the dropped values with
    the last solution and denoises with scikit-image's ``denoise_tv_chambolle``: a majorisation of the same objective
    (the first from a masked blur). Guo et al. solve it with a split Bregman method and a norm that is not squared.

    Does not withstand: an attack that averages its gradient over many dropout masks, and perturbations that are
    piecewise constant (stickers), which have little total variation.
    """
    import cv2
    from skimage.restoration import denoise_tv_chambolle

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        picture = image.astype(np.float32)
        mask = np.random.default_rng(seed).random(image.shape, np.float32) < kept
        known = mask.astype(np.float32)
        weight = cv2.GaussianBlur(known, (0, 0), TVM_FILL_SIGMA)
        filled = cv2.GaussianBlur(picture * known, (0, 0), TVM_FILL_SIGMA) / np.maximum(weight, 1e-3)
        for _ in range(TVM_ROUNDS):
            filled = denoise_tv_chambolle(
                np.where(mask, picture, filled), weight=lam, eps=0.0, max_num_iter=TVM_ITERATIONS, channel_axis=-1
            )
        return _to_bytes(filled)

    return apply


def sr(sigma: float | None) -> Apply:
    """Super-resolution: wavelet denoising, then a learned network to twice the size.

    scikit-image's ``denoise_wavelet`` (BayesShrink, soft threshold, in YCbCr; ``sigma`` in grey levels, None
    to estimate it) and our own small EDSR. Its picture of 448 x 448 is brought back to 224 x 224 by 2 x 2 means,
    because this classifier reads no larger one: part of what super-resolution adds is lost there.

    Does not withstand: perturbations above the wavelets' threshold, which the network sharpens like real detail;
    it has no randomness, so one gradient through it is enough.
    """
    import cv2
    from skimage.restoration import denoise_wavelet

    from benchmarks.robustness import learned

    network = learned.load_network("sr")

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        smooth = denoise_wavelet(
            image.astype(np.float32) / GREY_MAX,
            sigma=None if sigma is None else sigma / GREY_MAX,
            convert2ycbcr=True,
            method="BayesShrink",
            mode="soft",
            rescale_sigma=True,
            channel_axis=-1,
        )
        large = learned.run(network, _to_bytes(smooth * GREY_MAX))
        return np.asarray(cv2.resize(large, image.shape[1::-1], interpolation=cv2.INTER_AREA))

    return apply


def nrp(passes: int) -> Apply:
    """Neural representation purifier: a network that learned to bring the features of perturbed images back.

    The paper's passes once; our small network was better applied several times in a row, so it is.

    Does not withstand: perturbations unlike those it was trained on (black-box, universal, stickers, large eps); it
    has no randomness, so one gradient through it is enough.
    """
    from benchmarks.robustness import learned

    network = learned.load_network("nrp")

    def apply(image: np.ndarray, seed: int) -> np.ndarray:
        for _ in range(passes):
            image = learned.run(network, image)
        return image

    return apply


def rof(lam: float) -> Apply:
    """One Rudin-Osher-Fatemi solve at one scale, by this project's own kernels: MDDA without all that makes it MDDA.

    ``lam`` in grey levels.

    Does not withstand: perturbations stronger than about ``lam`` grey levels or wider than a few pixels; it has no
    randomness, so one gradient through it is enough.
    """
    params = MddaParams(
        scales=(1.0,),
        n_blocks=1,
        sigma=0.0,
        lam=lam,
        iterations=ROF_ITERATIONS,
        output_weights=(1.0,),
        smoothing=0.0,
    )
    return Purifier(SIDE, SIDE, params).purify


def mdda(preset: str) -> Apply:
    """This project's purifier with a shipped preset.

    Does not withstand: an attacker who averages over its noise and lets the identity or a blur stand in for its
    gradient (BPDA with EOT); see the adaptive column.
    """
    return Purifier(SIDE, SIDE, PRESETS[preset]).purify


_GUO = (
    "C. Guo, M. Rana, M. Cisse, L. van der Maaten, Countering adversarial images using input transformations, ICLR 2018"
)
_XU = "W. Xu, D. Evans, Y. Qi, Feature squeezing, NDSS 2018"
_MUSTAFA = "A. Mustafa et al., Image super-resolution as a defense against adversarial attacks, IEEE TIP 29, 2019"
_NASEER = "M. Naseer et al., A self-supervised approach for adversarial robustness, CVPR 2020"
_ROF = "L. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal algorithms, Physica D 60, 1992"
_MDDA = (
    "Y. Wang, Y. Li, Z. Shen, Y. Qiao, Multiscale diffusive and denoising aggregation, Computers in Biology and"
    " Medicine 164, 2023"
)


def _competitor(name: str, label: str, source: str, make: Callable[..., Apply]) -> Defence:
    """A defence at its strength in :data:`STRENGTHS`, which its label may name."""
    strength = STRENGTHS[name]
    return Defence(name, label.format(**strength), source, partial(make, **strength))


DEFENCES: dict[str, Defence] = {
    defence.name: defence
    for defence in (
        Defence("none", "none", "-", none),
        _competitor("bdr", "bit depth {bits} (BDR)", f"{_XU}; {_GUO}", bdr),
        _competitor("sr", "super-resolution, SR (ours)", _MUSTAFA, sr),
        _competitor("nrp", "NRP x {passes} (ours)", _NASEER, nrp),
        _competitor("jpeg", "JPEG {quality}", _GUO, jpeg),
        _competitor("median", "median {side}", _XU, median),
        _competitor("gaussian", "Gaussian {sigma:g}", "spatial smoothing, as in " + _XU, gaussian),
        _competitor("nlm", f"non-local means {NLM_SEARCH}-{NLM_PATCH}-{{strength:g}}", _XU, nlm),
        _competitor("tvm", "TV minimisation (TVM)", _GUO, tvm),
        _competitor("rof", "single-scale ROF", _ROF, rof),
        *(Defence(f"mdda_{name}", f"MDDA {name}", _MDDA, partial(mdda, name)) for name in PRESETS),
    )
}
