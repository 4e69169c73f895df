"""How fast, how exact and how frugal the purifier is beside MDDA built on other libraries' denoisers."""
