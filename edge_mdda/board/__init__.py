"""The machine below: what it is (``inventory``), what it senses (``sensors``), and what to think of that (``checks``).

``probe`` tries one part of the program in a child process (``children``); each result is a ``finding``.
:mod:`edge_mdda.doctor` puts them together.
"""
