"""Parts of the latency report: one measurement (``case``), its figures, and the report as text, page and comparison.

:mod:`edge_mdda.profiling` puts them together.
"""
