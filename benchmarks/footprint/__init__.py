"""Memory and start-up time: ``python -m benchmarks.footprint``."""
