"""Multiscale diffusive and denoising aggregation: the purifier, its parameters and its kernels."""
