"""Screen what appears in a folder, each picture exactly once."""
