"""Unknown sizes of a TorchScript program: their constraints, and the sizes of results."""
