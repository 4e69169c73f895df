"""Adversarial training of a checkpoint with the purifier in the loop.

Each image keeps its perturbation from one visit to the next, so that a few gradient steps a visit add up to a
strong attack. Two kinds of attacker are trained against: one who differentiates the network alone (``raw``), whose
images the network then sees purified, and one who goes through the purifier as if it were the identity or, on some
of the images, a blur (``through``). A network trained against the first falls to the second; one trained against the
identity falls to the blur, and each still falls to larger perturbations and to attacks of another kind.

References
----------
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
M. Goldblum et al., "Adversarially robust distillation", AAAI 2020 (a teacher sees the untouched picture).
H. Zheng et al., "Efficient adversarial training with transferable adversarial examples", CVPR 2020 (perturbations
are kept).
A. Athalye, N. Carlini, D. Wagner, "Obfuscated gradients give a false sense of security", ICML 2018 (BPDA).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_mdda.mdda.params import PRESETS
from export.dataset import SIDE, LabelledImages, decode_all, read_split
from export.errors import ExportError
from export.options import HardenOptions, TrainOptions
from export.train.augment import RandomPurifier, colour_view
from export.train.fine_tune import GRADIENT_CLIP, SAMPLING_POWER, file_hash, keep_freed_memory, run_of
from export.train.fine_tune import learning_rate as cosine
from export.train.loop import Progress, StepLog, descend, follow, kept_share, restore, stored_run, weight_groups

if TYPE_CHECKING:
    import torch

    from edge_mdda.mdda.purifier import Purifier
    from export.train.fake_quant import FakeQuantNet

KEPT_NAME = "perturbations.i8"
LEVELS = 127  # of a stored perturbation, as a share of its size
BOARD_SHARE = 0.7  # of the purified views get the board's own preset, the rest a random strength
RAMP_SHARE = 0.15  # of the steps, over which the perturbations grow to their full size
SMALLEST_ZOOM = 0.85  # of the side, of the attacker's diverse inputs (Xie et al., CVPR 2019)
DIVERSE_SHARE = 0.5  # of the attack steps
BLUR_SIDE, BLUR_PASSES = 5, 2  # pixels; two boxes of five have the variance of a Gaussian of sigma 2 pixels


@dataclass
class Visit:
    """One batch before the attack."""

    chosen: np.ndarray
    """(n,) indices of training images."""
    turns: np.ndarray
    """(n,) of eight: which rotation and mirror image."""
    pixels: np.ndarray
    """(n, s, s, 3) uint8."""
    epsilon: np.ndarray
    """(n,) float32 grey levels; 0 is not attacked."""
    purified: np.ndarray
    """(n,) bool: seen through the purifier."""
    smooth: np.ndarray
    """(n,) bool: the attacker has a blur stand in for the purifier, where there is one; always for the same images, so
    that what is kept of one visit is a start for the next."""
    seed: int


def turned(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight rotations and mirror images of a square."""
    image = np.rot90(image, turn % 4)
    return image[:, ::-1] if turn >= 4 else image


def turned_back(image: np.ndarray, turn: int) -> np.ndarray:
    """Undo :func:`turned`."""
    return np.rot90(image[:, ::-1] if turn >= 4 else image, -(turn % 4))


class Visits:
    """Endless random batches, each a function of (seed, step) alone, made ahead in a thread."""

    def __init__(self, images: np.ndarray, data: LabelledImages, options: HardenOptions) -> None:
        self.images, self.options = images, options
        prior = data.class_counts().astype(float) ** SAMPLING_POWER
        self.prior, self.targets = prior / prior.sum(), data.targets
        self.smooth = np.random.default_rng(options.seed).random(len(images)) < options.smooth_share
        self.by_class = [np.flatnonzero(data.targets == c) for c in range(len(data.labels))]

    def make(self, step: int) -> Visit:
        """The batch of one step."""
        o, rng = self.options, np.random.default_rng((self.options.seed, step))
        classes = rng.choice(len(self.prior), o.batch, p=self.prior)
        chosen = np.array([rng.choice(self.by_class[c]) for c in classes])
        turns = rng.integers(8, size=o.batch)
        pixels = np.stack(
            [
                colour_view(np.ascontiguousarray(turned(self.images[i], t)), rng)
                for i, t in zip(chosen, turns, strict=True)
            ]
        )
        ramp = min(1.0, (step + 1) / max(1.0, RAMP_SHARE * o.steps))
        epsilon = rng.uniform(o.eps_low, o.eps_high, o.batch) * ramp * (rng.random(o.batch) < o.attacked_share)
        purified = rng.random(o.batch) < o.purify_share
        if o.attack == "raw":
            purified |= epsilon > 0  # the raw view need not hold: it is there to raise the alarm
        smooth = self.smooth[chosen] & purified
        return Visit(chosen, turns, pixels, epsilon.astype(np.float32), purified, smooth, int(rng.integers(2**53)))

    def ahead(self, first: int, last: int) -> Iterator[Visit]:
        """Batches ``first`` to ``last - 1`` in order."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.make, first) if first < last else None
            for step in range(first, last):
                assert waiting is not None
                visit = waiting.result()
                waiting = pool.submit(self.make, step + 1) if step + 1 < last else None
                yield visit


class View:
    """What the network gets to see of pictures, some of them purified.

    Parameters
    ----------
    size : int
        Side of the pictures.
    seed : int
        Of the purifier's draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        from edge_mdda.mdda.purifier import Purifier

        self.board: Purifier = Purifier(size, size, PRESETS["balanced"])
        self.any_strength = RandomPurifier(1.0)
        self.rng = np.random.default_rng(seed)

    def __call__(self, pixels: torch.Tensor, purified: np.ndarray) -> torch.Tensor:
        """``(n, 3, s, s)`` float pixels, those of ``purified`` rounded and through MDDA with a fresh draw."""
        import torch

        if not purified.any():
            return pixels
        images = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        seen = images.copy()
        for n in np.flatnonzero(purified):
            if self.rng.random() < BOARD_SHARE:
                seen[n] = self.board.purify(images[n], int(self.rng.integers(2**53)))
            else:
                seen[n] = self.any_strength(images[n], self.rng)
        out = pixels.clone()
        mask = torch.from_numpy(purified)
        out[mask] = torch.from_numpy(seen).permute(0, 3, 1, 2).float()[mask]
        return out


def diverse(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Shrink the pictures a little and pad them at random, so that the gradient transfers (DI)."""
    from torch.nn import functional

    side = pixels.shape[-1]
    small = int(rng.integers(int(SMALLEST_ZOOM * side), side))
    top, left = rng.integers(0, side - small + 1, 2)
    shrunk = functional.interpolate(pixels, size=(small, small), mode="bilinear", align_corners=False)
    return functional.pad(shrunk, (int(left), int(side - small - left), int(top), int(side - small - top)))


def smoothed(gradient: torch.Tensor) -> torch.Tensor:
    """What passes backwards through two box blurs; ``(n, 3, s, s)``."""
    from torch.nn import functional

    for _ in range(BLUR_PASSES):
        gradient = functional.avg_pool2d(gradient, BLUR_SIDE, stride=1, padding=BLUR_SIDE // 2)
    return gradient


def attack(
    network: FakeQuantNet, visit: Visit, start: np.ndarray, targets: torch.Tensor, view: View, options: HardenOptions
) -> torch.Tensor:
    """Gradient steps from ``start``; pixels ``(n, 3, s, s)`` within ``visit.epsilon`` of the picture.

    ``start`` is ``(n, s, s, 3)`` float32, a share of epsilon in -1..1.
    """
    import torch
    from torch.nn import functional

    clean = torch.from_numpy(visit.pixels).permute(0, 3, 1, 2).float()
    hit = np.flatnonzero(visit.epsilon > 0)
    if not len(hit):
        return clean
    rows = torch.from_numpy(hit)
    original, wanted, purified = clean[rows], targets[rows], visit.purified[hit]
    epsilon = torch.from_numpy(visit.epsilon[hit]).view(-1, 1, 1, 1)
    smooth = torch.from_numpy(visit.smooth[hit]).view(-1, 1, 1, 1)
    rng = np.random.default_rng(visit.seed)
    now = (original + torch.from_numpy(start[hit]).permute(0, 3, 1, 2) * epsilon).clamp(0, 255)
    for _ in range(options.attack_steps):
        seen = view(now, purified) if options.attack == "through" else now
        seen = seen.detach().requires_grad_(True)
        spread = diverse(seen, rng) if options.attack == "raw" and rng.random() < DIVERSE_SHARE else seen
        gradient = torch.autograd.grad(functional.cross_entropy(network(spread), wanted), seen)[0]
        if smooth.any():
            gradient = torch.where(smooth, smoothed(gradient), gradient)
        moved = now + options.step_share * epsilon * gradient.sign()
        now = torch.minimum(torch.maximum(moved, original - epsilon), original + epsilon).clamp(0, 255)
    attacked = clean.clone()
    attacked[rows] = now
    return attacked


class Kept:
    """The perturbation of every training image, on disk, as a share of its size.

    A run that begins takes over what the run before it kept (``earlier``, where it has the same shape): a network
    is then trained from its first step against attacks of many steps.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], seed: int, earlier: Path | None = None) -> None:
        fresh = not path.exists()
        if fresh and earlier is not None and earlier.exists() and earlier.stat().st_size == np.prod(shape):
            shutil.copyfile(earlier, path)
            fresh = False
        self.values = np.memmap(path, np.int8, "w+" if fresh else "r+", shape=shape)
        if fresh:
            rng = np.random.default_rng(seed)
            for row in self.values:
                row[:] = rng.integers(-LEVELS, LEVELS + 1, shape[1:], np.int8)

    def get(self, visit: Visit) -> np.ndarray:
        """``(n, s, s, 3)`` float32 in -1..1, turned like the pictures."""
        rows = [turned(self.values[i], t) for i, t in zip(visit.chosen, visit.turns, strict=True)]
        return np.stack(rows).astype(np.float32) / LEVELS

    def put(self, visit: Visit, attacked: torch.Tensor) -> None:
        """Keep what the attack ended with."""
        change = attacked.permute(0, 2, 3, 1).numpy() - visit.pixels
        for n in np.flatnonzero(visit.epsilon > 0):
            share = np.clip(np.rint(change[n] / visit.epsilon[n] * LEVELS), -LEVELS, LEVELS).astype(np.int8)
            self.values[visit.chosen[n]] = turned_back(share, visit.turns[n])


def taught(logits: torch.Tensor, answer: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's probabilities from a teacher's; both ``(n, k)`` logits."""
    from torch.nn import functional

    return functional.kl_div(logits.log_softmax(1), answer.log_softmax(1), reduction="batchmean", log_target=True)


def harden(
    data_root: Path,
    checkpoint: Path,
    out: Path,
    options: HardenOptions,
    *,
    teacher: Path | None = None,
    threads: int = 1,
    checkpoint_every: int = 50,
    progress: Progress | None = None,
) -> Path:
    """Train a checkpoint on attacked images of the ``train`` split of ``data_root``; returns the new checkpoint.

    A checkpoint of the same run in ``out`` is resumed. ``out/log.jsonl`` gets a line every few steps.

    Parameters
    ----------
    data_root : Path
        Folder with ``images/`` and ``labels.csv``.
    checkpoint : Path
        Of ``python -m export train`` or of this command.
    out : Path
        Folder for ``checkpoint.pt``, ``log.jsonl`` and the perturbations (0.6 GB at 224 pixels).
    options : HardenOptions
        The run.
    teacher : Path, optional
        Checkpoint whose answer to the untouched picture, not purified and not attacked, is learnt beside the label.
    threads : int
        Threads of the tensor library.
    checkpoint_every : int
        Steps between two checkpoints.
    progress : callable, optional
        Called with ``(step, steps, loss, images_per_second)``.
    """
    keep_freed_memory()
    import cv2
    import torch
    from torch.nn import functional

    from export.train.fake_quant import FakeQuantNet
    from export.train.network import network_from_checkpoint, save_checkpoint

    torch.set_num_threads(threads)
    network, content = network_from_checkpoint(checkpoint)
    data = read_split(data_root, "train", tuple(content["labels"]))
    run = run_of(data_root, data.labels, asdict(options) | {"arch": network.arch}, checkpoint)
    run["teacher"] = None if teacher is None else file_hash(teacher)
    guide: FakeQuantNet | None = None
    if teacher is not None:
        guiding, known = network_from_checkpoint(teacher)
        if known["labels"] != run["labels"]:
            raise ExportError(f"{teacher}: a teacher of other labels than {checkpoint}")
        guide = FakeQuantNet(guiding, n_float=None).eval().requires_grad_(False)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "checkpoint.pt"
    # Folded batch norms: nothing of them is left to drift between clean and attacked pictures, and it is faster.
    student, average = (FakeQuantNet(network, n_float=None) for _ in range(2))
    optimiser = torch.optim.AdamW(weight_groups(student, options.weight_decay), lr=options.lr)
    parts: dict[str, Any] = {"student": student, "average": average, "optimiser": optimiser}
    first = restore(stored_run(path, run), parts)

    def save(step: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint(path, run | {"step": step, "ema": average.to_network().state_dict()} | state)

    images = decode_all(data, SIDE, SIDE)
    if options.size != SIDE:
        images = np.stack([cv2.resize(i, (options.size,) * 2, interpolation=cv2.INTER_AREA) for i in images])
    if not first:
        (out / KEPT_NAME).unlink(missing_ok=True)  # of a run that nothing else is left of
    visits, view = Visits(images, data, options), View(options.size, options.seed + first)
    kept = Kept(out / KEPT_NAME, images.shape, options.seed, earlier=checkpoint.parent / KEPT_NAME)
    log_prior = torch.log(torch.from_numpy(visits.prior).float())
    schedule = TrainOptions(steps=options.steps, lr=options.lr)
    with StepLog(out / "log.jsonl", first, options.steps, options.batch, progress) as log:
        for step, visit in enumerate(visits.ahead(first, options.steps), start=first):
            targets = torch.from_numpy(data.targets[visit.chosen])
            student.requires_grad_(False)
            attacked = attack(student, visit, kept.get(visit), targets, view, options)
            kept.put(visit, attacked)
            student.requires_grad_(True)
            logits = student(view(attacked.round(), visit.purified))
            loss = functional.cross_entropy(logits + log_prior, targets, label_smoothing=options.label_smoothing)
            if guide is not None:
                answer = guide(torch.from_numpy(visit.pixels).permute(0, 3, 1, 2).float())
                loss = loss.lerp(taught(logits, answer), options.teacher_share)
            value = descend(optimiser, student, loss, cosine(step, schedule), GRADIENT_CLIP)
            follow(average, student, kept_share(options.ema, step))
            log.add(step + 1, loss=value, accuracy=(logits.argmax(1) == targets).float().mean().item())
            if (step + 1) % checkpoint_every == 0 or step + 1 == options.steps:
                kept.values.flush()
                save(step + 1)
    return path
