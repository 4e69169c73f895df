"""Workstation side of edge_mdda: train, evaluate and quantise classifiers. Never installed on a board."""

import edge_mdda  # noqa: F401  # it switches telemetry off before a runtime is imported
