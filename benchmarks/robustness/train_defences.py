"""``python -m benchmarks.robustness train-defences``: train the networks of SR and NRP on the ``train`` split.

SR: an EDSR learns to undo a halving of clean photographs (Mustafa et al. take such a network as it is; Lim et al.).
It differs from the paper in size (41,000 weights, not 40 million), data (these photographs, not DIV2K), and in that
it adds to a bicubic interpolation.

NRP: a purifier and a critic are trained on self-supervised perturbations (Naseer et al.): noise is added to a
clean crop and then moved, within eps, to where the features of an ImageNet network change most; the purifier learns to
bring pixels and features back, and the critic (relativistic) to tell purified from clean crops. It differs from the
paper in size (78,000 weights), data, the feature network (EfficientNet-Lite0 at stride 8 instead of VGG-16), a few
instead of a hundred perturbation steps, and eps drawn from 0 to 8 of 255 instead of a fixed 16: the range it
is judged on. The feature network is a relative of the attacked one, which is to NRP's advantage.

A batch is a function of seed and step, and a checkpoint holds everything else, so that a killed run goes on to the same
weights.

References
----------
See :mod:`benchmarks.robustness.learned` and :mod:`benchmarks.robustness.trainers`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness.trainers import CONSTANTS, TRAINERS, NrpTrainer, Recipe, SrTrainer, crops
from edge_mdda.console import Progress
from edge_mdda.digest import sha256
from edge_mdda.errors import EdgeMddaError
from edge_mdda.files import replace_file
from export.dataset import SIDE, decode_all, read_split
from export.options import TrainOptions
from export.train.fine_tune import file_hash, keep_freed_memory, learning_rate

NAMES = ("sr", "nrp")
OUT = Path("runs/defences")
WEIGHTS = Path(__file__).parent / "weights"
CHECKPOINT_EVERY = 25  # steps
VAL_IMAGES = 40  # of val, evenly spread, for the figures in the JSON
DESCRIPTION = """\
Train the small networks behind the defences SR and NRP on the train split, by their published recipes, and write
weights and a description of the training beside them. A killed run goes on where its last checkpoint is."""
EXAMPLES = """\
examples:
  python -m benchmarks.robustness train-defences                 both, as shipped
  python -m benchmarks.robustness train-defences nrp --steps 50 --weights /tmp/weights --out /tmp/run
"""
LICENCE = "CC BY-NC-SA 4.0, as the photographs of HAM10000 that they were trained on"
RECIPES = {"sr": Recipe(steps=800, batch=8, crop=96, lr=1e-3), "nrp": Recipe(steps=500, batch=4, crop=96, lr=1e-3)}


def train(
    name: str, recipe: Recipe, images: np.ndarray, labels_hash: str, out: Path, step_done: Callable[[int], None]
) -> SrTrainer | NrpTrainer:
    """Train one network on ``(n, 224, 224, 3)`` uint8 images, from ``out/<name>.pt`` where that is there.

    Raises
    ------
    CheckpointError
        The checkpoint is of another recipe or data set.
    EdgeMddaError
        The loss is no finite number.
    """
    import torch

    from export.train.network import CheckpointError, load_checkpoint, save_checkpoint

    torch.manual_seed(recipe.seed)
    trainer = TRAINERS[name](recipe)
    for module in trainer.modules.values():
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    path, first = out / f"{name}.pt", 0
    origin = {"recipe": asdict(recipe), "constants": CONSTANTS[name], "labels_hash": labels_hash}
    if path.exists():
        stored = load_checkpoint(path)
        if stored.get("origin") != origin:
            raise CheckpointError(f"{path}: made with other options or data; choose another --out or remove it")
        for key, module in trainer.modules.items():
            module.load_state_dict(stored[key])
            trainer.optimisers[key].load_state_dict(stored[key + "_optimiser"])
        first = stored["step"]
    out.mkdir(parents=True, exist_ok=True)
    schedule = TrainOptions(steps=recipe.steps, lr=recipe.lr)
    for step in range(first, recipe.steps):
        for group in trainer.optimisers["network"].param_groups:
            group["lr"] = learning_rate(step, schedule)
        generator = torch.Generator().manual_seed((recipe.seed << 32) + step)
        loss = trainer.step(crops(images, recipe, step), generator)
        if not np.isfinite(loss):
            raise EdgeMddaError(f"{name}: the loss is no number at step {step + 1}; lower --lr")
        step_done(step + 1)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == recipe.steps:
            content: dict[str, Any] = {"origin": origin, "step": step + 1, "loss": loss}
            for key, module in trainer.modules.items():
                content |= {key: module.state_dict(), key + "_optimiser": trainer.optimisers[key].state_dict()}
            save_checkpoint(path, content)
            with (out / f"{name}.log").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step + 1, "loss": round(loss, 5), "at": round(time.time())}) + "\n")
    return trainer


def _describe(name: str, recipe: Recipe, weights: bytes, labels_hash: str, n_train: int) -> dict[str, Any]:
    import torch

    options = " ".join(f"--{key} {value:g}" for key, value in asdict(recipe).items())
    return {
        "defence": name,
        "note": "ours, trained by the published recipe; not the authors' weights",
        "command": f"python -m benchmarks.robustness train-defences {name} {options}",
        **asdict(recipe),
        **CONSTANTS[name],
        "data": {"set": "HAM10000", "split": "train", "images": n_train, "labels_sha256": labels_hash},
        "licence": LICENCE,
        "torch": torch.__version__,
        "sha256": sha256(weights).hexdigest(),
    }


def _train_all(args: argparse.Namespace) -> int:
    keep_freed_memory()
    import torch

    from benchmarks.robustness.learned import SUFFIX, load_network, weight_bytes
    from export.evaluate import write_json

    torch.set_num_threads(args.threads)
    data, val = read_split(args.data, "train"), read_split(args.data, "val")
    labels_hash = file_hash(args.data / "labels.csv")
    images, held_back = decode_all(data, SIDE, SIDE), decode_all(val, SIDE, SIDE)
    held_back = held_back[np.linspace(0, len(val) - 1, min(VAL_IMAGES, len(val))).astype(int)]
    for name in args.names or NAMES:
        changed = {key: getattr(args, key) for key in ("steps", "batch", "crop", "lr", "seed")}
        recipe = Recipe(**asdict(RECIPES[name]) | {key: value for key, value in changed.items() if value is not None})
        progress = Progress(recipe.steps)
        try:
            trainer = train(name, recipe, images, labels_hash, args.out, progress.at)
        finally:
            progress.clear()
        weights = weight_bytes(trainer.network)
        args.weights.mkdir(parents=True, exist_ok=True)
        replace_file(str(args.weights / (name + SUFFIX)), weights)
        trainer.network = load_network(name, args.weights)  # what is judged is the file
        figures = {key: round(value, 3) for key, value in trainer.judge(held_back).items()}
        description = _describe(name, recipe, weights, labels_hash, len(data)) | {"val": figures}
        write_json(args.weights / f"{name}.json", description)
        print(f"{args.weights / (name + SUFFIX)}: {len(weights)} bytes; {len(held_back)} images of val: {figures}")
    return 0


def _at_least(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"must be at least {low}, got {value}")
        return value

    return parse


def _name(text: str) -> str:
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"unknown '{text}', known are {', '.join(NAMES)}")
    return text


def _crop(text: str) -> int:
    value = int(text)
    if value % 16 or not 32 <= value <= SIDE:
        raise argparse.ArgumentTypeError(f"must be a multiple of 16 from 32 to {SIDE}, got {value}")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return value


def add_command(subparsers: Any) -> None:
    """Register ``train-defences``; its function is in ``execute``."""
    parser = subparsers.add_parser(
        "train-defences",
        help="train the small networks of SR and NRP",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", type=_name, metavar="sr|nrp", help="default: both")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data/ham10000"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="checkpoints and logs (%(default)s)")
    parser.add_argument(
        "--weights", type=Path, default=WEIGHTS, metavar="DIR", help="where the weights go (the package)"
    )
    parser.add_argument("--threads", type=_at_least(1), default=1, help="of the tensor library (%(default)s)")
    shipped = {key: " and ".join(f"{asdict(RECIPES[name])[key]:g}" for name in NAMES) for key in asdict(RECIPES["sr"])}
    for key, kind in (
        ("steps", _at_least(1)),
        ("batch", _at_least(1)),
        ("crop", _crop),
        ("lr", _rate),
        ("seed", _at_least(0)),
    ):
        parser.add_argument(f"--{key}", type=kind, help=f"of SR and NRP by default: {shipped[key]}")
    parser.set_defaults(execute=_train_all)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command alone, for ``python -m benchmarks.robustness.train_defences``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robustness")
    add_command(parser.add_subparsers(required=True, metavar="COMMAND"))
    args = parser.parse_args(arguments)
    try:
        return args.execute(args)
    except (EdgeMddaError, OSError) as error:
        print(f"train-defences: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
