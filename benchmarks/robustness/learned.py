"""The two learned defences, super-resolution (SR) and the neural representation purifier (NRP), and their weights.

The authors' weights are not used: both networks are small ones of ours, trained on the ``train`` split by
``python -m benchmarks.robustness train-defences`` along the published recipes. What differs from the papers stands in
:mod:`benchmarks.robustness.train_defences` and, with command, seed and data, in the JSON beside each weight file.

References
----------
A. Mustafa, S. H. Khan, M. Hayat, J. Shen, L. Shao, "Image super-resolution as a defense against adversarial attacks",
IEEE Transactions on Image Processing 29, 2019.
B. Lim, S. Son, H. Kim, S. Nah, K. M. Lee, "Enhanced deep residual networks for single image super-resolution", CVPR
Workshops 2017 (EDSR).
M. Naseer, S. Khan, M. Hayat, F. S. Khan, F. Porikli, "A self-supervised approach for adversarial robustness", CVPR
2020.
X. Wang et al., "ESRGAN", ECCV Workshops 2018 (residual-in-residual dense blocks).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.robustness.errors import RobustnessError

WEIGHTS = Path(__file__).parent / "weights"
SUFFIX = ".safetensors"
MAX_BYTES = 1 << 20  # of a weight file; ours have a fifth of it
GREY_MAX = 255.0  # grey levels
RESIDUAL_SCALE = 0.2  # of ESRGAN


class _Residual(nn.Module):
    """EDSR's block: two convolutions around a ReLU, no batch norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(functional.relu(self.first(x)))


class SrNet(nn.Module):
    """A small EDSR that doubles both sides: ``(n, 3, h, w)`` to ``(n, 3, 2 h, 2 w)``, float RGB in 0..1.

    It adds to a bicubic interpolation, unlike EDSR, so that a short training suffices.
    """

    def __init__(self, channels: int = 16, blocks: int = 8) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(_Residual(channels) for _ in range(blocks)))
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 12, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        found = self.head(x)
        found = found + self.body(self.blocks(found))
        plain = functional.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return plain + functional.pixel_shuffle(self.tail(found), 2)


class _Dense(nn.Module):
    """A densely connected block of three convolutions; each sees all that came before it."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        widths = (growth, growth, channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(channels + n * growth, width, 3, padding=1) for n, width in enumerate(widths)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = x
        for convolution in self.convolutions[:-1]:
            seen = torch.cat([seen, functional.leaky_relu(convolution(seen), 0.2)], 1)
        return x + RESIDUAL_SCALE * self.convolutions[-1](seen)


class _ResidualInResidual(nn.Module):
    def __init__(self, channels: int, growth: int, dense: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(*(_Dense(channels, growth) for _ in range(dense)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + RESIDUAL_SCALE * (self.dense(x) - x)


class NrpNet(nn.Module):
    """A small purifier of residual-in-residual dense blocks: ``(n, 3, h, w)`` in 0..1, with even sides, to the same.

    It works at half the resolution (pixel unshuffle) and adds to its input, unlike the paper's, to be cheap enough
    for a CPU.
    """

    def __init__(self, channels: int = 24, growth: int = 12, blocks: int = 2, dense: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(12, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(_ResidualInResidual(channels, growth, dense) for _ in range(blocks)))
        self.body = nn.Conv2d(channels, channels, 3, padding=1)
        self.tail = nn.Conv2d(channels, 12, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        found = self.head(functional.pixel_unshuffle(x, 2))
        found = functional.leaky_relu(found + self.body(self.blocks(found)), 0.2)
        return x + functional.pixel_shuffle(self.tail(found), 2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"sr": SrNet, "nrp": NrpNet}


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """``(n, h, w, 3)`` uint8 to ``(n, 3, h, w)`` float32 in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / GREY_MAX


def to_images(pixels: torch.Tensor) -> np.ndarray:
    """Back to ``(n, h, w, 3)`` uint8, clipped and rounded."""
    return (pixels.clamp(0, 1) * GREY_MAX).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def weight_bytes(network: nn.Module) -> bytes:
    """A network as a float16 safetensors file.

    Raises
    ------
    RobustnessError
        A weight is no finite number.
    """
    from safetensors.torch import save

    tensors = {name: value.detach().half().contiguous() for name, value in network.state_dict().items()}
    if not all(torch.isfinite(value).all() for value in tensors.values()):
        raise RobustnessError("the trained weights hold NaN or infinity; train again with a lower learning rate")
    return save(tensors)


def load_network(name: str, folder: Path = WEIGHTS) -> nn.Module:
    """The network of this name with its weights, in evaluation mode.

    Parameters
    ----------
    name : {'sr', 'nrp'}
    folder : Path
        Holds ``<name>.safetensors``.

    Raises
    ------
    RobustnessError
        The file is missing, unreadable or of another network.
    """
    from safetensors.torch import load

    path, network = folder / (name + SUFFIX), NETWORKS[name]()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RobustnessError(f"{path}: larger than {MAX_BYTES} bytes, so not one of these weights; restore it")
        network.load_state_dict({key: value.float() for key, value in load(path.read_bytes()).items()})
    except OSError as error:
        advice = f"run: python -m benchmarks.robustness train-defences {name}"
        raise RobustnessError(f"{path}: cannot read the weights ({error.strerror}); {advice}") from error
    except RobustnessError:
        raise
    except Exception as error:  # safetensors and torch raise types of their own on a damaged file
        advice = f"restore it, or run: python -m benchmarks.robustness train-defences {name}"
        raise RobustnessError(f"{path}: not the weights of {name} ({type(error).__name__}); {advice}") from error
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """The tensor library on one thread meanwhile, as all defences run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(network: nn.Module, image: np.ndarray) -> np.ndarray:
    """One ``(h, w, 3)`` uint8 image with even sides through a network on one thread; SR doubles both sides."""
    with one_thread(), torch.inference_mode():
        return to_images(network(to_tensor(image[None])))[0]
