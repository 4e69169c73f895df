"""Parts of the watching service: the folder and its protocol (``spool``), and the service manager (``notify``).

:mod:`edge_mdda.watch` puts them together.
"""
