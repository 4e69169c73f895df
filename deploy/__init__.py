"""Workstation: board profiles, the offline bundle and its installer.

A referral aid is packed here, never a diagnosis.
"""

import edge_mdda  # noqa: F401  # it switches telemetry off before a runtime is imported
