"""What ``tune``, ``ablate`` and ``alarm`` share: photographs, attacked sets, and any MDDA parameters as a defence."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.robustness.options import DATA, MAX_IMAGES, MAX_SEED, MAX_THREADS, new_file, whole
from edge_mdda.classifier import BUILT_IN_MODELS, STANDARD

if TYPE_CHECKING:
    from benchmarks.robustness.defences import Defence
    from benchmarks.robustness.images import Photographs
    from benchmarks.robustness.networks import Deployed
    from edge_mdda.mdda.params import MddaParams

TIMED_CALLS, WARM_UPS = 15, 3  # of one purification's milliseconds


def add_options(parser: argparse.ArgumentParser, per_class: int) -> None:
    """The options that every study has."""
    parser.add_argument("--model", choices=tuple(BUILT_IN_MODELS), default=STANDARD, help="network (%(default)s)")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="the data set (%(default)s)")
    parser.add_argument(
        "--images",
        type=whole(1, MAX_IMAGES),
        default=per_class,
        metavar="N",
        help="at most so many of each class (%(default)s)",
    )
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the rows and how they came about")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of attacked images (XDG cache folder)")
    parser.add_argument(
        "--seed", type=whole(0, MAX_SEED), default=0, metavar="N", help="of attacks and purifier (%(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=whole(1, MAX_THREADS),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="(%(default)s)",
    )


@dataclass
class Study:
    """One network, some photographs of one split, and the attacked sets made of them."""

    target: Deployed
    photos: Photographs
    maker: Any
    threads: int
    seed: int

    @classmethod
    def open(cls, args: argparse.Namespace, split: str) -> Study:
        """From the options of :func:`add_options`."""
        from benchmarks.robustness import images, networks
        from benchmarks.robustness.attacks import library
        from benchmarks.robustness.cache import Cache, default_folder
        from benchmarks.robustness.sets import Maker
        from export.train.fine_tune import keep_freed_memory

        library()
        keep_freed_memory()
        import torch

        torch.set_num_threads(args.threads)
        maker = Maker(Cache(args.cache or default_folder()), args.seed)
        photos = images.read(args.data, split, args.images)
        return cls(networks.deployed(args.model), photos, maker, args.threads, args.seed)

    def attacked(self, attack: str, eps: float) -> np.ndarray:
        """Gray-box images ``(n, h, w, 3)`` uint8; the photographs themselves for eps 0."""
        if not eps:
            return self.photos.images
        return self.maker.on_gradient(attack, self.target.twin, self.target.digest, self.photos, eps).images

    def answers(self, images: np.ndarray, params: MddaParams | None, draw: int = 0) -> np.ndarray:
        """Probabilities ``(n, n_labels)`` of the shipped int8 file behind MDDA with these parameters, or alone."""
        from benchmarks.robustness.defences import DEFENCES

        return self.behind(DEFENCES["none"] if params is None else as_defence(params), images, draw)

    def behind(self, defence: Defence, images: np.ndarray, draw: int = 0) -> np.ndarray:
        """Probabilities ``(n, n_labels)`` of the shipped int8 file behind any defence."""
        from benchmarks.robustness.pipeline import Pipeline, seeds_for
        from edge_mdda.mdda.seeds import MASK_64

        seeds = [(seed + draw) & MASK_64 for seed in seeds_for(self.photos.data.paths, self.seed)]
        with Pipeline(defence, self.target.classifier, self.threads) as pipeline:
            return pipeline.predict(images, seeds)

    def balanced_accuracy(self, probabilities: np.ndarray) -> float:
        """Of answers to the photographs."""
        from export.metrics import balanced_accuracy

        data = self.photos.data
        return balanced_accuracy(data.targets, probabilities.argmax(1), len(data.labels))

    def about(self, command: str) -> dict[str, Any]:
        """What made the rows."""
        from benchmarks.robustness.report import commit
        from export.convert.report import processor

        manifest = self.target.classifier.manifest
        return {
            "command": command,
            "network": self.target.name,
            "model_sha256": manifest.sha256,
            "split": self.photos.data.name,
            "n": len(self.photos),
            "commit": commit(),
            "machine": processor(),
            "threads": self.threads,
        }


def as_defence(params: MddaParams) -> Defence:
    """MDDA with any parameters, as one of the defences."""
    from benchmarks.robustness.defences import Defence

    return Defence("mdda", "MDDA", "this project", partial(_purify, params))


def _purify(params: MddaParams) -> Callable[[np.ndarray, int], np.ndarray]:
    from edge_mdda.mdda.purifier import Purifier
    from export.dataset import SIDE

    return Purifier(SIDE, SIDE, params).purify


def milliseconds(variants: Sequence[MddaParams], image: np.ndarray) -> list[float]:
    """Median milliseconds of one purification with each, one thread, interleaved."""
    applies = [_purify(params) for params in variants]
    times: list[list[float]] = [[] for _ in variants]
    for n in range(WARM_UPS + TIMED_CALLS):
        for apply, taken in zip(applies, times, strict=True):
            started = time.perf_counter()
            apply(image, n)
            taken.append((time.perf_counter() - started) * 1e3)
    return [float(np.median(taken[WARM_UPS:])) for taken in times]
