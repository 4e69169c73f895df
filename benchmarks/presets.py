"""``python -m benchmarks.presets``: how strong should the purifier be? The run behind the shipped presets.

Images of ``val`` are attacked with projected gradient descent (PGD) on a float checkpoint. One attacker knows
the network and not the purifier (gray box). Every strength is judged on the clean and on the attacked images.
The other knows the purifier too (adaptive) and differentiates through it as if it were the identity (BPDA),
averaging over the noise (EOT); the shipped presets are judged against that one as well.

References
----------
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018 (PGD).
A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of security", ICML 2018 (BPDA, EOT).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.errors import EdgeMddaError
from edge_mdda.mdda import PRESETS, MddaParams, Purifier
from export.dataset import SIDE, LabelledImages, decode_all, read_split
from export.evaluate import TorchClassifier, purifier_seed, write_json
from export.metrics import balanced_accuracy

if TYPE_CHECKING:
    import torch

EPSILON = 4.0  # grey levels of 255
STEPS = 10
STEP_SIZE = EPSILON / 4
PER_CLASS = 20  # images of each class, fewer where val has fewer
BATCH = 16
ITERATIONS = {2: 3, 3: 3, 4: 4, 5: 4, 6: 5, 7: 5, 8: 6}
"""Solver iterations by sigma = lam that leave an RMSE below half a grey level (tests/test_kernels.py)."""
BLOCKS = (1, 2, 3)
EOT_DRAWS = 5
ADAPTIVE_PER_CLASS = 5


def balanced_subset(data: LabelledImages, per_class: int) -> LabelledImages:
    """The first images of each class in the order of the label file."""
    chosen = np.concatenate([np.flatnonzero(data.targets == c)[:per_class] for c in range(len(data.labels))])
    return LabelledImages(tuple(data.paths[i] for i in chosen), data.targets[chosen], data.labels, data.name)


Gradient = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def pgd(gradient: Gradient, images: np.ndarray, targets: np.ndarray, seed: int) -> np.ndarray:
    """PGD in the max norm from a random start; uint8 in, uint8 out, within ``EPSILON`` after rounding.

    ``gradient`` maps ``(n, 3, h, w)`` float pixels and their classes to the gradient of the loss.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    out = np.empty_like(images)
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        clean = torch.from_numpy(images[part]).permute(0, 3, 1, 2).float()
        wanted = torch.from_numpy(targets[part])
        noise = (torch.rand(clean.shape, generator=generator) * 2 - 1) * EPSILON
        attacked = (clean + noise).clamp(0, 255)
        for _ in range(STEPS):
            moved = attacked + STEP_SIZE * gradient(attacked, wanted).sign()
            attacked = torch.minimum(torch.maximum(moved, clean - EPSILON), clean + EPSILON).clamp(0, 255)
        out[part] = attacked.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return out


def gray_box(network: Any) -> Gradient:
    """Gradient of the network alone."""
    import torch

    def gradient(pixels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        pixels = pixels.detach().requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(network(pixels), wanted)
        return torch.autograd.grad(loss, pixels)[0]

    return gradient


def adaptive(network: Any, params: MddaParams, seed: int) -> Gradient:
    """Mean gradient at ``EOT_DRAWS`` purified versions of the image: BPDA with the identity."""
    import torch

    of_network, purifier, rng = gray_box(network), Purifier(SIDE, SIDE, params), np.random.default_rng(seed)

    def gradient(pixels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        images = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        total = torch.zeros_like(pixels)
        for _ in range(EOT_DRAWS):
            purified = np.stack([purifier.purify(image, int(rng.integers(2**53))) for image in images])
            total += of_network(torch.from_numpy(purified).permute(0, 3, 1, 2).float(), wanted)
        return total

    return gradient


def judge(
    classifier: TorchClassifier, images: np.ndarray, data: LabelledImages, params: MddaParams | None
) -> tuple[float, float]:
    """``(balanced accuracy, median milliseconds of the purifier)`` through one strength, or none."""
    times = [0.0]
    if params is not None:
        purifier, purified, times = Purifier(SIDE, SIDE, params), np.empty_like(images), []
        for image, target, path in zip(images, purified, data.paths, strict=True):
            start = time.perf_counter()
            target[:] = purifier.purify(image, purifier_seed(path, 0))
            times.append(time.perf_counter() - start)
        images = purified
    rows = [classifier.predict(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
    predicted = np.concatenate(rows).argmax(1)
    return balanced_accuracy(data.targets, predicted, len(data.labels)), float(np.median(times)) * 1e3


def against_adaptive(checkpoint: Path, data_root: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """Shipped presets against the attacker who knows them; rows of ``{preset, n, clean, gray, adaptive}``."""
    classifier = TorchClassifier(checkpoint, threads=os.cpu_count() or 1)
    data = balanced_subset(read_split(data_root, "val"), ADAPTIVE_PER_CLASS)
    clean = decode_all(data, SIDE, SIDE)
    attacked = pgd(gray_box(classifier.network), clean, data.targets, seed=0)
    rows = []
    for name in names:
        params = PRESETS[name]
        adapted = pgd(adaptive(classifier.network, params, seed=0), clean, data.targets, seed=0)
        scores = [judge(classifier, images, data, params)[0] for images in (clean, attacked, adapted)]
        rows.append({"preset": name, "n": len(data)} | dict(zip(("clean", "gray", "adaptive"), scores, strict=True)))
        print(f"| {name} | {len(data)} | " + " | ".join(f"{score:.3f}" for score in scores) + " |", flush=True)
    return rows


def search(checkpoint: Path, data_root: Path, per_class: int) -> dict[str, Any]:
    """Judge every strength; rows of ``{n_blocks, sigma, clean, attacked, ms}``, the first without purifier."""
    from export.train import keep_freed_memory

    keep_freed_memory()
    classifier = TorchClassifier(checkpoint, threads=os.cpu_count() or 1)
    data = balanced_subset(read_split(data_root, "val"), per_class)
    clean = decode_all(data, SIDE, SIDE)
    attacked = pgd(gray_box(classifier.network), clean, data.targets, seed=0)
    strengths: list[MddaParams | None] = [None]
    for n_blocks in BLOCKS:
        for sigma, iterations in ITERATIONS.items():
            params = replace(
                PRESETS["balanced"], n_blocks=n_blocks, sigma=float(sigma), lam=float(sigma), iterations=iterations
            )
            strengths.append(params)
    rows = []
    for strength in strengths:
        on_clean, ms = judge(classifier, clean, data, strength)
        on_attacked, _ = judge(classifier, attacked, data, strength)
        row = {"n_blocks": 0, "sigma": 0.0}
        if strength:
            row = {"n_blocks": strength.n_blocks, "sigma": strength.block_sigma(0)}
        print(f"| {row['n_blocks']} | {row['sigma']:g} | {on_clean:.3f} | {on_attacked:.3f} | {ms:.1f} |", flush=True)
        rows.append(row | {"clean": on_clean, "attacked": on_attacked, "ms": ms})
    return {
        "n": len(data),
        "split": "val",
        "attack": f"pgd{STEPS}, eps {EPSILON:g} of 255, knows the network and not the purifier",
        "checkpoint_sha256": classifier.manifest.sha256,
        "rows": rows,
    }


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.presets", description=__doc__.split("\n\n")[0])
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pt of python -m export train")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/ham10000"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--per-class", type=int, default=PER_CLASS, metavar="N", help="images a class (%(default)s)")
    parser.add_argument(
        "--adaptive", action="store_true", help="the shipped presets against an attacker who knows them"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    try:
        if args.adaptive:
            print("| preset | n | clean | gray box | adaptive |\n| --- | --- | --- | --- | --- |")
            result: dict[str, Any] = {"rows": against_adaptive(args.checkpoint, args.data, tuple(PRESETS))}
        else:
            print("| blocks | sigma = lam | clean | attacked | ms |\n| --- | --- | --- | --- | --- |")
            result = search(args.checkpoint, args.data, args.per_class)
        if args.json:
            write_json(args.json, result)
    except (EdgeMddaError, OSError) as error:
        print(f"presets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
