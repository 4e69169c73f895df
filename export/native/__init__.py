"""Compile the kernels ahead of time for a board."""
