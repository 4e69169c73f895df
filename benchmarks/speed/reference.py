"""The Rudin-Osher-Fatemi optimum in float64, with a certificate of how near it is."""

from __future__ import annotations

import numpy as np

CHECK_EVERY = 50  # iterations between two looks at the duality gap
MAX_ITERATIONS = 5000
LIPSCHITZ = 8.0  # largest eigenvalue of div grad on a two-dimensional grid


def rof_optimum(noisy: np.ndarray, lam: float, tolerance: float = 0.01) -> tuple[np.ndarray, float]:
    """``argmin_u TV(u) + |u - noisy|^2 / (2 lam)`` with isotropic TV of forward differences.

    Parameters
    ----------
    noisy : (h, w) float
        Grey levels.
    lam : float
        ROF weight in grey levels.
    tolerance : float
        Stop when the RMSE from the optimum is proven to be at most this many grey levels.

    Returns
    -------
    u : (h, w) float64
    bound : float
        Proven upper bound of the RMSE of ``u``: the energy is 1/lam-strongly convex, so
        ``|u - optimum|^2 <= 2 lam gap``.

    References
    ----------
    A. Beck, M. Teboulle, "Fast gradient-based algorithms for constrained total variation image denoising
    and deblurring problems", IEEE Trans. Image Processing 18, 2009 (FGP).
    """
    f = noisy.astype(np.float64)
    px, py, rx, ry, gx, gy = (np.zeros_like(f) for _ in range(6))
    u, bound, momentum = f, np.inf, 1.0
    for iteration in range(1, MAX_ITERATIONS + 1):
        _gradient(f + lam * _divergence(rx, ry), gx, gy)
        qx, qy = rx + gx / (LIPSCHITZ * lam), ry + gy / (LIPSCHITZ * lam)
        norm = np.maximum(np.sqrt(qx * qx + qy * qy), 1)
        qx /= norm
        qy /= norm
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        beta = (momentum - 1) / following
        rx, ry = qx + beta * (qx - px), qy + beta * (qy - py)
        px, py, momentum = qx, qy, following
        if iteration % CHECK_EVERY == 0:
            divergence = _divergence(px, py)
            u = f + lam * divergence
            _gradient(u, gx, gy)
            gap = float(np.sqrt(gx * gx + gy * gy).sum() + (u * divergence).sum())
            bound = float(np.sqrt(2 * lam * max(gap, 0.0) / f.size))
            if bound <= tolerance:
                break
    return u, bound


def _gradient(u: np.ndarray, gx: np.ndarray, gy: np.ndarray) -> None:
    np.subtract(u[:, 1:], u[:, :-1], out=gx[:, :-1])
    np.subtract(u[1:], u[:-1], out=gy[:-1])


def _divergence(px: np.ndarray, py: np.ndarray) -> np.ndarray:
    out = px + py
    out[:, 1:] -= px[:, :-1]
    out[1:] -= py[:-1]
    return out
