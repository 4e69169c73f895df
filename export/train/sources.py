"""Train on several sources at once, attacked and purified, on a GPU or a CPU; and judge what came out.

    python -m export.train.sources --data ../shared/data/* --init checkpoint.pt --minutes 6 --out runs/new

What is known of a picture decides its loss: one of seven classes, or malignant or not. Each source has its own prior
(logit adjustment), so that where a picture comes from tells the network nothing about its class.

References
----------
A. K. Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edge_mdda import Purifier
from edge_mdda.mdda.params import PRESETS
from export.dataset import CLASSES, MALIGNANT
from export.metrics import auroc
from export.train.fake_quant import FakeQuantNet
from export.train.lesion_sets import MALIGNANT_ONLY, LesionSets, read_sets, unpack
from export.train.loop import kept_share, weight_groups
from export.train.network import LesionNet, load_checkpoint, save_checkpoint
from export.train.torch_attack import Attack, Loss, attacked, margin
from export.train.torch_augment import views
from export.train.torch_mdda import Schedule, fuse, purify

SAMPLING_POWER = 0.5  # class probability ~ count ** SAMPLING_POWER
# Prior of a class that a source does not have, beside those that it has. Far below this, such a class costs nothing
# there, and the network answers the other source's pictures with it.
PRIOR_FLOOR = 0.05
SMOOTHING = 0.1  # of labels
MALIGNANT_SHARE = 0.15  # of the pictures of a source that knows only malignant or not
PRESET_SHARES = {"balanced": 0.65, "strong": 0.2, "mild": 0.15}
WARMUP, FINAL = 0.04, 0.02  # share of the run; share of the peak learning rate
CLIP = 2.0  # norm of the gradient
BINARY_WEIGHT = 0.5  # of the loss of malignant or not, beside that of the class
SAVE_EVERY = 300.0  # s between checkpoints of a run that goes on
ONE_STEP = 1.25  # of eps, from a random start (Wong, Rice, Kolter, "Fast is better than free", ICLR 2020)
JUDGE = 256  # pictures at a time
IS_MALIGNANT = [label in MALIGNANT for label in CLASSES]


@dataclass(frozen=True)
class Recipe:
    """What decides a run."""

    arch: str
    minutes: float
    batch: int
    lr: float
    seed: int
    attack_share: float
    purify_share: float
    eps_low: float
    eps_high: float
    attack_steps: int
    ways: tuple[float, float, float]
    """Shares of the attackers true, identity and blur of purified pictures; 0, 0, 0 attacks the network alone."""
    sources: tuple[float, ...]
    """Share of each source in a batch."""
    freeze: int = 0
    """Blocks at the input that keep their weights, with the stem; a third of a CPU step goes to the first three."""
    ema: float = 0.998
    weight_decay: float = 0.02


class Sampler:
    """Random rows, by source and class."""

    def __init__(self, sets: LesionSets, recipe: Recipe) -> None:
        self.rng = np.random.default_rng(recipe.seed)
        self.counts = np.round(np.array(recipe.sources) / sum(recipe.sources) * recipe.batch).astype(int)
        self.groups: list[list[np.ndarray]] = []
        self.shares: list[np.ndarray] = []
        priors = []
        for source in range(len(recipe.sources)):
            rows = np.flatnonzero((sets.source == source) & ~sets.held_back)
            known = np.unique(sets.target[rows])
            self.groups.append([rows[sets.target[rows] == target] for target in known])
            sizes = np.array([len(group) for group in self.groups[-1]], float) ** SAMPLING_POWER
            if known.min() < 0:
                sizes = np.where(known == MALIGNANT_ONLY, MALIGNANT_SHARE, 1 - MALIGNANT_SHARE)
            share = sizes / sizes.sum()
            self.shares.append(share)
            prior = np.full(len(CLASSES), PRIOR_FLOOR)
            for target, part in zip(known, share, strict=True):
                if target >= 0:
                    prior[target] = part
            priors.append(np.log(prior / prior.sum()))
        self.log_prior = np.array(priors, np.float32)

    def rows(self) -> np.ndarray:
        """Row indices of one batch."""
        out = []
        for groups, share, count in zip(self.groups, self.shares, self.counts, strict=True):
            chosen = self.rng.choice(len(groups), count, p=share)
            out += [groups[k][self.rng.integers(len(groups[k]))] for k in chosen]
        return np.array(out)


def known_loss(targets: torch.Tensor, log_prior: torch.Tensor, smoothing: float) -> Loss:
    """Cross entropy of the class, or of malignant or not where no more is known; one value a picture."""
    classes = targets.clamp_min(0)
    malignant = torch.tensor(IS_MALIGNANT, device=targets.device)
    log_share = math.log(MALIGNANT_SHARE), math.log(1 - MALIGNANT_SHARE)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        by_class = functional.cross_entropy(logits + log_prior, classes, label_smoothing=smoothing, reduction="none")
        bad = torch.logsumexp(logits[:, malignant], 1) - math.log(sum(IS_MALIGNANT)) + log_share[0]
        good = torch.logsumexp(logits[:, ~malignant], 1) - math.log(len(CLASSES) - sum(IS_MALIGNANT)) + log_share[1]
        odds = bad - good
        binary = functional.binary_cross_entropy_with_logits(
            odds, (targets == MALIGNANT_ONLY).float() * (1 - smoothing) + smoothing / 2, reduction="none"
        )
        both = by_class + BINARY_WEIGHT * functional.binary_cross_entropy_with_logits(
            torch.logsumexp((logits + log_prior)[:, malignant], 1)
            - torch.logsumexp((logits + log_prior)[:, ~malignant], 1),
            malignant[classes].float() * (1 - smoothing) + smoothing / 2,
            reduction="none",
        )
        return torch.where(targets >= 0, both, binary)

    return loss


def train(sets: LesionSets, recipe: Recipe, out: Path, init: Path | None, device: str) -> LesionNet:
    """Train for ``recipe.minutes`` and return the averaged network; ``out`` gets a log and a checkpoint."""
    torch.manual_seed(recipe.seed)
    np.random.seed(recipe.seed)
    rows = np.flatnonzero(~sets.held_back)
    place = np.full(len(sets.target), -1)
    place[rows] = np.arange(len(rows))
    pixels = torch.from_numpy(sets.decoded(rows)).to(device)
    targets, boxes = (torch.from_numpy(a[rows]).to(device) for a in (sets.target, sets.box))
    sampler = Sampler(sets, recipe)
    priors = torch.from_numpy(sampler.log_prior[sets.source[rows]]).to(device)
    network, average = _networks(recipe, init, device)
    frozen = _frozen(network, recipe.freeze)
    network.train()
    optimiser = torch.optim.AdamW(weight_groups(network, recipe.weight_decay), lr=recipe.lr)
    schedules = {name: Schedule.of(PRESETS[name]) for name in PRESET_SHARES}
    out.mkdir(parents=True, exist_ok=True)
    start, saved, step, losses = time.monotonic(), 0.0, 0, []
    with (out / "log.jsonl").open("w") as log:
        while (done := (time.monotonic() - start) / (recipe.minutes * 60)) < 1:
            lr = recipe.lr * min(1, done / WARMUP + 0.02) * (0.5 * (1 + math.cos(math.pi * done)) * (1 - FINAL) + FINAL)
            for group in optimiser.param_groups:
                group["lr"] = lr
            at = torch.from_numpy(place[sampler.rows()]).to(device)
            x, loss = views(pixels[at].permute(0, 3, 1, 2).float(), boxes[at]), (targets[at], priors[at])
            x = _attacked_and_purified(network, x, loss, recipe, schedules, done)
            for part in frozen:
                part.eval()
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
                logits = network(x.contiguous(memory_format=torch.channels_last))
            value = known_loss(*loss, SMOOTHING)(logits.float()).mean()
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
            _follow(average, network, kept_share(recipe.ema, step))
            step += 1
            losses.append(value.detach())
            if step % 50 == 0:
                line = {
                    "step": step,
                    "s": round(time.monotonic() - start, 1),
                    "lr": lr,
                    "loss": float(torch.stack(losses).mean()),
                }
                losses = []
                print(out.name, line, flush=True)
                log.write(json.dumps(line) + "\n")
                log.flush()
                if time.monotonic() - start > saved + SAVE_EVERY:
                    saved = time.monotonic() - start
                    _save(average, recipe, out, step, init)
    _save(average, recipe, out, step, init)
    return _plain(average)


def _networks(recipe: Recipe, init: Path | None, device: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The network to train and the one that follows it; an ONNX file to start from has no batch norms left."""
    if init is not None and init.suffix == ".onnx":
        from export.train.from_onnx import network_from_onnx

        network: torch.nn.Module = FakeQuantNet(network_from_onnx(init, recipe.arch, len(CLASSES)), n_float=None)
    else:
        network = LesionNet(len(CLASSES), arch=recipe.arch, pretrained=init is None)
        if init is not None:
            stored = load_checkpoint(init)["ema"]
            network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network, copy.deepcopy(network).eval().requires_grad_(False)


def _frozen(network: torch.nn.Module, blocks: int) -> list[torch.nn.Module]:
    """The stem and so many blocks, which keep their weights; nothing for 0."""
    if not blocks:
        return []
    if isinstance(network, FakeQuantNet):
        layers = 1 + sum(count for _, count, _ in network.blocks[:blocks])
        parts: list[torch.nn.Module] = list(network.in_order()[:layers])
    else:
        body: Any = network.body
        parts = [body._conv_stem, body._bn0, *body._blocks[:blocks]]
    for part in parts:
        part.requires_grad_(False)
    return parts


def _plain(network: torch.nn.Module) -> LesionNet:
    return network.to_network() if isinstance(network, FakeQuantNet) else network  # type: ignore[return-value]


def _save(average: torch.nn.Module, recipe: Recipe, out: Path, step: int, init: Path | None) -> None:
    options = {**vars(recipe), "ways": list(recipe.ways), "sources": list(recipe.sources)}
    weights = {k: v.cpu().contiguous() for k, v in _plain(average).state_dict().items()}
    save_checkpoint(out / "checkpoint.pt", {"labels": list(CLASSES), "options": options, "step": step, "ema": weights,
                                            "init": init.name if init else "imagenet"})  # fmt: skip


def _attacked_and_purified(
    network: torch.nn.Module, x: torch.Tensor, known: tuple[torch.Tensor, torch.Tensor], recipe: Recipe,
    schedules: dict[str, Schedule], done: float,
) -> torch.Tensor:  # fmt: skip
    """Half of the batch's fate: some pictures are attacked, some are purified, drawn anew each step."""
    n, device = len(x), x.device
    purified = torch.rand(n, device=device) < recipe.purify_share
    hit = torch.rand(n, device=device) < recipe.attack_share
    ramp = min(1.0, 0.25 + done / 0.3)
    eps = (recipe.eps_low + (recipe.eps_high - recipe.eps_low) * torch.rand(n, 1, 1, 1, device=device)) * ramp
    preset = str(np.random.choice(list(PRESET_SHARES), p=list(PRESET_SHARES.values())))
    schedule = schedules[preset]
    way = "raw"
    if sum(recipe.ways):
        way = str(np.random.choice(["true", "identity", "blur"], p=np.array(recipe.ways) / sum(recipe.ways)))
    x = x.clone()
    network.eval()
    for chosen, how in ((hit & purified, way), (hit & ~purified, "raw")):
        if chosen.any():
            attack = Attack(how, recipe.attack_steps, step_share=0.5 if recipe.attack_steps > 1 else ONE_STEP)
            loss = known_loss(known[0][chosen], known[1][chosen], 0.0)
            x[chosen] = attacked(network, x[chosen], loss, eps[chosen], attack, schedule).round()
    network.train()
    with torch.no_grad():
        if purified.any():
            x[purified] = purify(x[purified], schedule).round() if x.is_cuda else _as_on_the_board(x[purified], preset)
    return x


def _as_on_the_board(x: torch.Tensor, preset: str) -> torch.Tensor:
    """Purified by the product's own kernels: thirty times as fast on a CPU as the tensor code."""
    height, width = x.shape[-2:]
    if (height, width, preset) not in _PURIFIERS:
        _PURIFIERS[height, width, preset] = Purifier(height, width, PRESETS[preset], threads=1)
    purifier = _PURIFIERS[height, width, preset]
    pictures = x.permute(0, 2, 3, 1).to(torch.uint8).numpy()
    out = [purifier.purify(p, seed=int(np.random.randint(2**31))).copy() for p in pictures]
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float()


_PURIFIERS: dict[tuple[int, int, str], Purifier] = {}


@torch.no_grad()
def _follow(average: torch.nn.Module, network: torch.nn.Module, kept: float) -> None:
    target, now = average.state_dict(), network.state_dict()
    names = [name for name, value in target.items() if value.is_floating_point()]
    torch._foreach_lerp_([target[n] for n in names], [now[n] for n in names], 1 - kept)


@torch.no_grad()
def probabilities(network: torch.nn.Module, x: torch.Tensor, schedule: Schedule | None) -> torch.Tensor:
    """(n, classes) behind one draw of the purifier, or of the pictures as they are."""
    parts = []
    for part in x.split(JUDGE):
        seen = part if schedule is None else purify(part, schedule).round()
        parts.append(network(seen).float().softmax(1))
    return torch.cat(parts)


def recall_mean(predicted: torch.Tensor, targets: torch.Tensor) -> float:
    """Balanced accuracy over the classes that are there."""
    return float(torch.stack([(predicted[targets == c] == c).float().mean() for c in targets.unique()]).mean())


def judge(network: LesionNet, sets: LesionSets, device: str, eps: tuple[float, ...], seconds: float) -> dict[str, Any]:
    """Held-back pictures: each source clean, and the first source under gray-box and adaptive attackers.

    An adaptive row that would begin after ``seconds`` is left out.
    """
    begin, schedule, report = time.monotonic(), Schedule.of(PRESETS["balanced"]), {}
    malignant = np.array(IS_MALIGNANT)
    for source in np.unique(sets.source[sets.held_back]):
        rows = np.flatnonzero(sets.held_back & (sets.source == source))
        x = torch.from_numpy(sets.decoded(rows)).to(device).permute(0, 3, 1, 2).float()
        y = torch.from_numpy(sets.target[rows]).to(device)
        if (y < 0).any():
            continue
        for name, how in (("raw", None), ("balanced", schedule)):
            p = probabilities(network, x, how)
            area = auroc(malignant[sets.target[rows]], p[:, malignant].sum(1).cpu().numpy())
            report[f"source {source} clean {name}"] = {"n": len(y), "bacc": recall_mean(p.argmax(1), y), "auroc": area}
        if source or not eps:
            continue
        for e in eps:
            wrong = torch.zeros(len(y), dtype=torch.bool, device=device)
            for way in ("raw", "identity", "blur", "true"):
                if time.monotonic() - begin > seconds:
                    break
                attack = Attack(way, 20, 0.25, 1 if way == "raw" else 2, keep_best=True)
                parts = [
                    attacked(
                        network, xs, margin(ys), torch.full((len(xs), 1, 1, 1), e, device=device), attack, schedule
                    )
                    for xs, ys in zip(x.split(128), y.split(128), strict=True)
                ]
                predicted = probabilities(network, torch.cat(parts), schedule).argmax(1)
                report[f"{way} {e:g}"] = {"n": len(y), "bacc": recall_mean(predicted, y)}
                if way != "raw":
                    wrong |= predicted != y
                    held = torch.where(wrong, torch.full_like(y, -1), y)
                    report[f"worst adaptive {e:g}"] = {"n": len(y), "bacc": recall_mean(held, y)}
                print(way, e, report[f"{way} {e:g}"], flush=True)
    return report


def main() -> int:
    """The command line; see the module's text."""
    parser = argparse.ArgumentParser(prog="python -m export.train.sources", description=__doc__.split("\n")[0])
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, nargs="+", metavar="DIR", help="folders with labels.csv and images/")
    data.add_argument("--packed", type=Path, nargs="+", metavar="FILE", help="files of export.train.lesion_sets.pack")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint, log and figures go here")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="checkpoint or own ONNX file to start from (default: ImageNet)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--arch", default="efficientnet-lite0")
    for name, kind, default, text in (
        ("minutes", float, 6.0, "to train"), ("batch", int, 128, "pictures a step"), ("lr", float, 6e-4, "peak rate"),
        ("seed", int, 0, "of all that is random"), ("attack-share", float, 0.5, "of the pictures"),
        ("purify-share", float, 0.6, "of the pictures"), ("eps-low", float, 0.5, "grey levels"),
        ("eps-high", float, 3.0, "grey levels"), ("attack-steps", int, 2, "of the attacker"),
        ("freeze", int, 0, "blocks at the input that keep their weights"),
        ("judge-seconds", float, 60.0, "for the adaptive rows"),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default, help=f"{text} (%(default)s)")
    parser.add_argument(
        "--ways", type=float, nargs=3, default=(0.0, 0.0, 0.0), metavar="P", help="true, identity, blur"
    )
    parser.add_argument(
        "--sources", type=float, nargs="+", default=(0.5, 0.37, 0.13), metavar="P", help="share of each"
    )
    parser.add_argument("--eps", type=float, nargs="*", default=(), metavar="E", help="judge under attack, grey levels")
    args = parser.parse_args()
    if args.device == "cuda":
        print("fused kernel:", fuse(), flush=True)
    sets = unpack(args.packed) if args.packed else read_sets(args.data)
    names = {f for f in Recipe.__dataclass_fields__ if hasattr(args, f)}
    recipe = Recipe(
        **{n: getattr(args, n) for n in names - {"ways", "sources"}}, ways=tuple(args.ways), sources=tuple(args.sources)
    )
    if recipe.minutes <= 0 or len(recipe.sources) != len(np.unique(sets.source)):
        parser.error("--minutes must be positive, and --sources needs one share for each source")
    network = train(sets, recipe, args.out, args.init, args.device)
    report = judge(network, sets, args.device, tuple(args.eps), args.judge_seconds)
    (args.out / "judged.json").write_text(json.dumps(report, indent=1) + "\n")
    print(args.out.name, json.dumps(report), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
