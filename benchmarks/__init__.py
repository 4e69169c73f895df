"""Benchmarks of edge_mdda, each a command that prints a table and writes JSON: ``python -m benchmarks.<name>``."""

import edge_mdda  # noqa: F401  # it switches telemetry off before a runtime is imported
