"""The purifier as differentiable tensor code, for training and attacking on a GPU or a CPU.

It has the structure of :class:`edge_mdda.Purifier` and solves the same Rudin-Osher-Fatemi problems, by FISTA on the
dual, so that an attacker can take the true gradient through the unrolled solver. Its answer differs from the board's by
the noise and by the solver's last iterations; what is shipped is judged behind the board's own.

References
----------
A. Beck, M. Teboulle, "Fast gradient-based algorithms for constrained total variation image denoising and deblurring
problems", IEEE Trans. Image Processing 18, 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from edge_mdda import MddaParams

DUAL_STEP = 0.125  # 1 / 8, the inverse of the squared norm of the discrete gradient (Chambolle 2004)
ITERATIONS = 10  # of FISTA: closer to the optimum than the noise is to being seen
WHITE = 255.0  # grey level


@dataclass(frozen=True)
class Schedule:
    """What the purifier's parameters come to on dyadic scales 1, 1/2, 1/4, ..."""

    n_scales: int
    n_blocks: int
    sigma: tuple[float, ...]
    """One a block, grey levels."""
    lam: tuple[float, ...]
    """One a scale, grey levels."""
    aggregate: tuple[float, float, float]
    """Weights of the scale itself, the finer and the coarser one."""
    output: tuple[float, ...]
    smoothing: float

    @classmethod
    def of(cls, params: MddaParams) -> Schedule:
        """The schedule of a preset.

        Raises
        ------
        ValueError
            The scales are not 1, 1/2, 1/4, ...; this code has no other ones.
        """
        n = len(params.scales)
        if tuple(params.scales) != tuple(0.5**k for k in range(n)):
            raise ValueError(f"scales: expected 1, 1/2, 1/4, ..., got {params.scales}")

        def each(value: float | tuple[float, ...], count: int) -> tuple[float, ...]:
            return (float(value),) * count if isinstance(value, (int, float)) else tuple(map(float, value))

        total = sum(params.output_weights)
        return cls(
            n_scales=n,
            n_blocks=params.n_blocks,
            sigma=each(params.sigma, params.n_blocks),
            lam=each(params.lam, n),
            aggregate=params.aggregation,
            output=tuple(w / total for w in params.output_weights),
            smoothing=params.smoothing,
        )


def halved(x: torch.Tensor) -> torch.Tensor:
    """The next coarser scale: means of 2 x 2."""
    return functional.avg_pool2d(x, 2)


def doubled(x: torch.Tensor) -> torch.Tensor:
    """The next finer scale, bilinear."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def divergence(px: torch.Tensor, py: torch.Tensor) -> torch.Tensor:
    """Backward differences of a dual field."""
    return px - functional.pad(px, (1, 0))[..., :-1] + py - functional.pad(py, (0, 0, 1, 0))[..., :-1, :]


def rof(noisy: torch.Tensor, lam: float, iterations: int = ITERATIONS) -> torch.Tensor:
    """``argmin_u TV(u) + |u - noisy|^2 / (2 lam)`` by FISTA on the dual, each channel by itself.

    Parameters
    ----------
    noisy : torch.Tensor
        (n, c, h, w) float grey levels.
    lam : float
        Strength in grey levels.
    iterations : int
        Of FISTA.
    """
    if FUSED is not None and noisy.is_cuda and not (torch.is_grad_enabled() and noisy.requires_grad):
        return FUSED(noisy, lam, iterations)
    px = py = rx = ry = torch.zeros_like(noisy)
    t = 1.0
    for _ in range(iterations):
        t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
        beta, t = (t - 1) / t_next, t_next
        u = noisy + divergence(rx, ry)
        qx = rx + DUAL_STEP * functional.pad(u[..., 1:] - u[..., :-1], (0, 1))
        qy = ry + DUAL_STEP * functional.pad(u[..., 1:, :] - u[..., :-1, :], (0, 0, 0, 1))
        shrink = lam * torch.rsqrt(torch.clamp(qx * qx + qy * qy, min=lam * lam))
        qx, qy = qx * shrink, qy * shrink
        rx, ry, px, py = qx + beta * (qx - px), qy + beta * (qy - py), qx, qy
    return noisy + divergence(px, py)


FUSED: Callable[[torch.Tensor, float, int], torch.Tensor] | None = None
"""One CUDA kernel a FISTA step, for tensors that ask for no gradient; see :func:`fuse`."""

KERNEL = r"""
extern "C" __global__ void fista(const float* g, const float* rx, const float* ry, const float* px, const float* py,
    float* npx, float* npy, float* nrx, float* nry, float lam, float beta, int h, int w, long long n) {
  long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  int c = i % w, r = (i / w) % h;
  float x0 = rx[i], y0 = ry[i];
  float u = g[i] + x0 - (c ? rx[i - 1] : 0.f) + y0 - (r ? ry[i - w] : 0.f);
  float gx = 0.f, gy = 0.f;
  if (c < w - 1) gx = g[i + 1] + rx[i + 1] - x0 + ry[i + 1] - (r ? ry[i + 1 - w] : 0.f) - u;
  if (r < h - 1) gy = g[i + w] + rx[i + w] - (c ? rx[i + w - 1] : 0.f) + ry[i + w] - y0 - u;
  float qx = x0 + 0.125f * gx, qy = y0 + 0.125f * gy;
  float s = lam * rsqrtf(fmaxf(qx * qx + qy * qy, lam * lam));
  qx *= s; qy *= s;
  nrx[i] = qx + beta * (qx - px[i]); nry[i] = qy + beta * (qy - py[i]);
  npx[i] = qx; npy[i] = qy;
}
"""
KERNEL_THREADS = 256  # a block
FUSED_TOLERANCE = 0.01  # grey levels between the kernel and the plain code, else the kernel is not used


def fuse() -> bool:
    """Use the CUDA kernel where CuPy is there and agrees with the plain code; say whether it is used."""
    global FUSED
    try:
        import cupy
    except ImportError:
        return False
    kernel = cupy.RawKernel(KERNEL, "fista")

    def run(noisy: torch.Tensor, lam: float, iterations: int) -> torch.Tensor:
        noisy = noisy.contiguous()
        (h, w), n, t = noisy.shape[-2:], noisy.numel(), 1.0
        old, new = ([torch.zeros_like(noisy) for _ in range(4)] for _ in range(2))
        grid = ((n + KERNEL_THREADS - 1) // KERNEL_THREADS,)
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            for _ in range(iterations):
                t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
                pointers = [noisy, old[2], old[3], old[0], old[1], *new]
                scalars = (cupy.float32(lam), cupy.float32((t - 1) / t_next), cupy.int32(h), cupy.int32(w))
                kernel(grid, (KERNEL_THREADS,), (*(p.data_ptr() for p in pointers), *scalars, cupy.int64(n)))
                old, new, t = new, old, t_next
        return noisy + divergence(old[0], old[1])

    FUSED = None
    sample = torch.rand(2, 3, 56, 48, device="cuda") * WHITE
    gap = float((run(sample, 5.0, 8) - rof(sample, 5.0, 8)).abs().max())
    FUSED = run if gap < FUSED_TOLERANCE else None
    return FUSED is not None


def _aggregated(planes: list[torch.Tensor], weights: tuple[float, float, float]) -> list[torch.Tensor]:
    """Each scale takes a little from its finer and its coarser neighbour."""
    out = []
    for s, plane in enumerate(planes):
        itself, finer, coarser = weights[0], weights[1] * (s > 0), weights[2] * (s + 1 < len(planes))
        total = itself + finer + coarser
        mixed = itself / total * plane
        if finer:
            mixed = mixed + finer / total * halved(planes[s - 1])
        if coarser:
            mixed = mixed + coarser / total * doubled(planes[s + 1])
        out.append(mixed)
    return out


def purify(pixels: torch.Tensor, schedule: Schedule, iterations: int = ITERATIONS) -> torch.Tensor:
    """Purified pictures with fresh noise, differentiable, not rounded.

    Parameters
    ----------
    pixels : torch.Tensor
        (n, 3, h, w) float grey levels 0..255; h and w divide by the coarsest scale.
    schedule : Schedule
        The purifier's parameters.
    iterations : int
        Of the solver.
    """
    planes = [pixels]
    for _ in range(schedule.n_scales - 1):
        planes.append(halved(planes[-1]))
    for block in range(schedule.n_blocks):
        if block:
            planes = _aggregated(planes, schedule.aggregate)
        planes = [
            rof(plane + schedule.sigma[block] * torch.randn_like(plane), lam, iterations)
            for plane, lam in zip(planes, schedule.lam, strict=True)
        ]
    planes = _aggregated(planes, schedule.aggregate)
    mean = schedule.output[-1] * planes[-1]
    for s in range(schedule.n_scales - 2, -1, -1):
        mean = schedule.output[s] * planes[s] + doubled(mean)
    side = schedule.smoothing / 4
    row = torch.tensor([side, 1 - 2 * side, side], device=pixels.device, dtype=pixels.dtype)
    kernel = (row[:, None] * row[None, :]).expand(3, 1, 3, 3)
    return functional.conv2d(functional.pad(mean, (1, 1, 1, 1), mode="replicate"), kernel, groups=3).clamp(0, WHITE)


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Rounded to 8 bit, with the identity as its gradient."""
    return x + (x.round() - x).detach()
