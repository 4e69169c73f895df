"""The ARM64 test bench: a board's Debian in emulation, the real bundle installed in it, and what must hold there."""
