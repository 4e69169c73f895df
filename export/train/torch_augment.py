"""Random views of lesions, made on the device that trains: geometry, light, optics, rulers, dark corners, compression.

Pictures of another clinic differ in all of these, so none may tell a class.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from export.train.torch_attack import blurred

ZOOM = (0.60, 1.25)  # share of the picture's side that a view shows
ASPECT = (0.80, 1.25)  # pictures of all formats were squeezed to squares
SHIFT = 0.16  # half sides
LESION_SHARE = (0.45, 0.95)  # of the view's side that the lesion's longer side takes, where its place is known
AROUND_LESION = 0.5  # of the views, where its place is known
GAIN_SPREAD = 0.10  # log standard deviation of a channel's gain
LIGHT = (0.75, 1.30)  # contrast
SATURATION = (0.70, 1.30)
GAMMA_SPREAD = 0.18  # log standard deviation
OFFSET = 12.0  # grey levels, standard deviation
BLURRED, COARSE, NOISY, DARK_CORNERS, RULER, ERASED = 0.25, 0.25, 0.20, 0.20, 0.15, 0.20  # shares of the views


def _uniform(n: int, low: float, high: float, device: torch.device) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, device=device)


def geometry(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Turned, mirrored, zoomed and shifted views; half of those with a known lesion are taken around it.

    Parameters
    ----------
    x : torch.Tensor
        (n, 3, h, w) float.
    boxes : torch.Tensor
        (n, 4) left, top, right and bottom of the lesion as shares of the side; 0, 0, 1, 1 where it is not known.
    """
    n, device = len(x), x.device
    angle = torch.rand(n, device=device) * 2 * math.pi
    zoom = torch.exp(_uniform(n, math.log(ZOOM[0]), math.log(ZOOM[1]), device))
    stretch = torch.exp(_uniform(n, math.log(ASPECT[0]), math.log(ASPECT[1]), device) / 2)
    flip = (torch.rand(n, device=device) < 0.5).float() * 2 - 1
    shift = (torch.rand(n, 2, device=device) * 2 - 1) * SHIFT
    sides = boxes[:, 2:] - boxes[:, :2]
    around = (sides.amax(1) < 1) & (torch.rand(n, device=device) < AROUND_LESION)
    close = (sides.amax(1) / _uniform(n, *LESION_SHARE, device)).clamp(0.2, ZOOM[1])
    zoom = torch.where(around, close, zoom)
    shift = torch.where(around[:, None], boxes[:, 2:] + boxes[:, :2] - 1 + shift * close[:, None], shift)
    c, s = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    turn = torch.stack(
        [torch.stack([c * flip * stretch, -s / stretch], 1), torch.stack([s * flip * stretch, c / stretch], 1)], 1
    )
    grid = functional.affine_grid(torch.cat([turn, shift[:, :, None]], 2), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def colour(x: torch.Tensor) -> torch.Tensor:
    """Another lamp, camera and white balance."""
    n, device = len(x), x.device
    saturation = _uniform(n, *SATURATION, device)[:, None, None]
    mix = saturation * torch.eye(3, device=device) + (1 - saturation) * torch.full((3, 3), 1 / 3, device=device)
    gain = torch.exp(torch.randn(n, 3, device=device) * GAIN_SPREAD)
    matrix = mix * gain[:, :, None] * _uniform(n, *LIGHT, device)[:, None, None]
    x = 255 * (x.clamp_min(0) / 255) ** torch.exp(torch.randn(n, 1, 1, 1, device=device) * GAMMA_SPREAD)
    mean = x.mean((2, 3))
    balance = (gain / gain.mean(1, keepdim=True) - 1) * mean
    offset = mean + torch.randn(n, 1, device=device) * OFFSET - torch.einsum("nij,nj->ni", matrix, mean) + balance
    return torch.einsum("nij,njhw->nihw", matrix, x) + offset[:, :, None, None]


def optics(x: torch.Tensor) -> torch.Tensor:
    """Blur, few pixels, noise, dark corners, a ruler at one side, a covered patch."""
    n, _, h, w = x.shape
    device = x.device

    def some(share: float) -> torch.Tensor:
        return (torch.rand(n, device=device) < share)[:, None, None, None]

    x = torch.where(some(BLURRED), blurred(x, float(0.4 + torch.rand(1) * 1.4)), x)
    few = int(h * (0.35 + 0.4 * float(torch.rand(1))))
    small = functional.interpolate(x, (few, few), mode="bilinear", antialias=True, align_corners=False)
    x = torch.where(some(COARSE), functional.interpolate(small, (h, w), mode="bilinear", align_corners=False), x)
    x = x + torch.randn_like(x) * some(NOISY) * (1 + 6 * torch.rand(n, 1, 1, 1, device=device))
    rows = ((torch.arange(h, device=device) + 0.5) / h)[None, :, None]
    columns = ((torch.arange(w, device=device) + 0.5) / w)[None, None, :]
    radius = _uniform(n, 0.46, 0.70, device)[:, None, None]
    outside = ((rows - 0.5) ** 2 + (columns - 0.5) ** 2).sqrt() > radius
    x = torch.where(outside[:, None] & some(DARK_CORNERS), x * 0.08, x)
    place, pitch = _uniform(n, 0.0, 0.12, device)[:, None, None], _uniform(n, 0.02, 0.07, device)[:, None, None]
    ticks = ((columns / pitch) % 1 < 0.22) & (rows > place) & (rows < place + 0.06)
    x = torch.where(ticks[:, None] & some(RULER), x * 0.3, x)
    height, width = (_uniform(n, 0.1, 0.3, device)[:, None, None] for _ in range(2))
    top, left = (torch.rand(n, 1, 1, device=device) for _ in range(2))
    covered = ((rows - top).abs() < height / 2) & ((columns - left).abs() < width / 2)
    return torch.where(covered[:, None] & some(ERASED), x.mean((2, 3), keepdim=True), x)


def views(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """One random view of each picture, in 8 bit: ``(n, 3, h, w)`` float grey levels."""
    return optics(colour(geometry(x, boxes))).clamp(0, 255).round()
