"""What the purifier costs on ARM boards, estimated without one: ``python -m benchmarks.arm_cost``."""
