"""Turn a trained network into files for the board, and check that they answer alike."""
