"""Small files for the surrogate networks: weights of a few bits, compressed.

A file ``<name>.weights.xz`` is an xz-compressed safetensors file. Its tensors are those of the network's
``state_dict``: with two and more axes as int8 whole numbers beside a float32 ``<tensor>.scale`` for each index of the
first axis, the others in float32. Its metadata holds ``arch`` (a key of :data:`ARCHITECTURES`), ``labels`` (a JSON
list), ``bits`` (of the whole numbers: fewer compress better) and ``about`` (a JSON object: how it was trained, how
good it is, its licence). It holds no code. Rounding to 6 bits costs a transfer attack next to nothing: a surrogate
only has to be a network that solves the task.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.robustness.errors import RobustnessError
from benchmarks.robustness.squeezenet import SqueezeNet
from edge_mdda.files import replace_file

SUFFIX = ".weights.xz"
SCALE = ".scale"
MIN_BITS, MAX_BITS = 4, 8
MAX_BYTES = 256 << 20  # of the unpacked file; a damaged one must not fill the memory


def _lesion_net(arch: str, n_classes: int) -> nn.Module:
    from export.train.network import LesionNet

    return LesionNet(n_classes, arch=arch)


ARCHITECTURES: dict[str, Callable[[str, int], nn.Module]] = {
    **{f"efficientnet-lite{n}": _lesion_net for n in range(3)},
    "squeezenet1_1": lambda _, n_classes: SqueezeNet(n_classes),
}
"""What a file can hold, by its ``arch``."""


def check_bits(bits: int) -> None:
    """Refuse with a RobustnessError what weights cannot be packed with."""
    if not MIN_BITS <= bits <= MAX_BITS:
        raise RobustnessError(f"bits: must be from {MIN_BITS} to {MAX_BITS}, got {bits}")


def save_surrogate(
    path: Path,
    network: nn.Module,
    arch: str,
    labels: Sequence[str],
    bits: int = 6,
    about: Mapping[str, Any] | None = None,
) -> int:
    """Write a network's weights; returns the bytes written.

    Raises
    ------
    RobustnessError
        An unknown architecture, a number of bits out of range, or weights that are no finite numbers.
    """
    from safetensors.torch import save

    if arch not in ARCHITECTURES:
        raise RobustnessError(f"unknown architecture '{arch}'; known are {', '.join(ARCHITECTURES)}")
    check_bits(bits)
    top, tensors = 2 ** (bits - 1) - 1, {}
    for name, value in network.state_dict().items():
        value = value.detach().cpu()
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RobustnessError(f"{arch}: the weights '{name}' hold NaN or infinity; train again")
        if value.is_floating_point() and value.ndim > 1:
            scale = (value.flatten(1).abs().amax(1) / top).clamp_min(1e-12)
            whole = (value / scale.view(-1, *[1] * (value.ndim - 1))).round().to(torch.int8)
            tensors[name], tensors[name + SCALE] = whole.contiguous(), scale.float()
        else:
            tensors[name] = value.float().contiguous() if value.is_floating_point() else value.contiguous()
    metadata = {
        "arch": arch,
        "labels": json.dumps(list(labels)),
        "bits": str(bits),
        "about": json.dumps(dict(about or {})),
    }
    content = lzma.compress(save(tensors, metadata), preset=9 | lzma.PRESET_EXTREME)
    replace_file(str(path), content)
    return len(content)


def load_surrogate(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a surrogate.

    Returns
    -------
    network : nn.Module
        In evaluation mode, without gradients for its weights; batch norms are folded where that is known how.
    metadata : dict
        ``arch``, ``labels``, ``bits`` and ``about``.

    Raises
    ------
    RobustnessError
        A damaged file, or one whose weights do not fit its architecture.
    """
    try:
        content = lzma.LZMADecompressor().decompress(path.read_bytes(), MAX_BYTES)
        metadata, tensors = _parse(content)
        arch, labels = metadata["arch"], json.loads(metadata["labels"])
        build = ARCHITECTURES[arch]
        state = {}
        for name, value in tensors.items():
            if not name.endswith(SCALE):
                scale = tensors.get(name + SCALE)
                state[name] = value if scale is None else value.float() * scale.view(-1, *[1] * (value.ndim - 1))
        network = build(arch, len(labels))
        network.load_state_dict(state, strict=True)
    except OSError:
        raise
    except Exception as error:  # xz's, safetensors' and torch's own types
        raise RobustnessError(f"{path}: not a usable surrogate ({type(error).__name__}); get the file again") from error
    network = _folded(network.eval())
    for weight in network.parameters():
        weight.requires_grad_(False)
    about = {"arch": arch, "labels": labels, "bits": int(metadata["bits"]), "about": json.loads(metadata["about"])}
    return network.eval(), about


def _parse(content: bytes) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a safetensors file in memory."""
    from safetensors.torch import load

    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size])["__metadata__"], load(content)


def _folded(network: nn.Module) -> nn.Module:
    """An EfficientNet-Lite without batch norms: the same numbers in half the time."""
    from export.train.network import LesionNet

    if not isinstance(network, LesionNet):
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    from export.train.fake_quant import FakeQuantNet

    return FakeQuantNet(network, n_float=None)
