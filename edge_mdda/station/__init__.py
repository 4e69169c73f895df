"""The clinic station: capture, screen, keep, and hand on; a web page on the board, without a network.

The extra ``station``; nothing else of the package imports it.
"""
