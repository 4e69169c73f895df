"""Workstation side of edge_mdda: train, evaluate and quantise classifiers. Never installed on a board."""
