"""The deployed pipeline: a defence, then the int8 file, as the board runs them; many images side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness.cache import hash_code, hash_text, versions_of
from benchmarks.robustness.defences import STRENGTHS, Apply, Defence
from edge_mdda.classifier import Classifier
from edge_mdda.mdda.params import PRESETS
from export.evaluate import purifier_seed

HERE = Path(__file__).parent
PURIFIER = HERE.parents[1] / "edge_mdda" / "mdda"
WARM_UPS, RUNS = 2, 9  # of a defence's milliseconds
PACKAGES = ("numpy", "numba", "opencv-python-headless", "opencv-python", "scikit-image", "PyWavelets", "torch")
"""What defences call; another version may give other pixels."""
PROBE_SEEDS = (1, 2)  # two different ones tell whether a defence is random


class Pipeline:
    """One defence before one classifier, in a few threads.

    Parameters
    ----------
    defence : Defence
        Opened once in each thread.
    classifier : Classifier
        The deployed model; its calls may come from several threads.
    threads : int
        Images side by side.
    """

    def __init__(self, defence: Defence, classifier: Classifier, threads: int = 1) -> None:
        self.defence, self.classifier = defence, classifier
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _apply(self) -> Apply:
        apply = getattr(self._local, "apply", None)
        if apply is None:
            apply = self._local.apply = self.defence.open()
        return apply

    def views(self, images: Sequence[np.ndarray] | np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Defended images ``(n, h, w, 3)`` uint8, each with its own seed."""
        return np.stack(list(self._pool.map(lambda image, seed: self._apply()(image, seed), images, seeds)))

    def predict(self, images: Sequence[np.ndarray] | np.ndarray, seeds: Sequence[int]) -> np.ndarray:
        """Class probabilities ``(n, n_labels)`` of the images behind the defence."""

        def one(image: np.ndarray, seed: int) -> np.ndarray:
            return self.classifier.predict(self._apply()(image, seed)[None])[0]

        return np.stack(list(self._pool.map(one, images, seeds)))


def seeds_for(paths: Sequence[Path], seed: int) -> list[int]:
    """The seeds with which images are judged: of their names, which no attacker is told."""
    return [purifier_seed(path, seed) for path in paths]


def is_random(defence: Defence, image: np.ndarray) -> bool:
    """Whether two seeds give two results; if not, one draw is as good as many."""
    apply = defence.open()
    first, second = (apply(image.copy(), seed) for seed in PROBE_SEEDS)
    return not np.array_equal(first, second)


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV and the tensor library on one thread meanwhile, as the milliseconds are said to be."""
    import cv2

    from benchmarks.robustness.learned import one_thread as one_torch_thread

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with one_torch_thread():
            yield
    finally:
        cv2.setNumThreads(before)


def milliseconds(defence: Defence, images: np.ndarray) -> float:
    """Median milliseconds of one call on one thread, nothing else running in this process."""
    apply, times = defence.open(), []
    with one_thread():
        for n in range(WARM_UPS + RUNS):
            image = images[n % len(images)]
            started = time.perf_counter()
            apply(image, n)
            times.append((time.perf_counter() - started) * 1e3)
    return float(np.median(times[WARM_UPS:]))


def describe(defence: Defence) -> dict[str, Any]:
    """What a cached result of a defence depends on: its code, packages, weights and, for MDDA, its preset."""
    code = [*sorted(HERE.glob("defences*.py")), *sorted(HERE.glob("learned*.py"))]
    code += [PURIFIER / f"{name}.py" for name in ("purifier", "rof_schedule", "seeds", "workspace")]
    code += sorted((PURIFIER / "kernels").glob("*.py"))
    weights = [path for path in sorted((HERE / "weights").glob("*")) if path.is_file()]
    preset = PRESETS.get(defence.name.removeprefix("mdda_"))
    return {
        "name": defence.name,
        "label": defence.label,
        "code": hash_code(tuple(code)),
        "versions": versions_of(*PACKAGES),
        "weights": hash_text(*(path.read_bytes().hex() for path in weights)),
        "strength": STRENGTHS.get(defence.name),
        "preset": preset.to_dict() if preset and defence.name.startswith("mdda_") else None,
    }
