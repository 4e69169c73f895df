"""Workstation: board profiles, the offline bundle and its installer.

A referral aid is packed here, never a diagnosis.
"""
