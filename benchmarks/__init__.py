"""Benchmarks of edge_mdda, each a command that prints a table and writes JSON: ``python -m benchmarks.<name>``."""
