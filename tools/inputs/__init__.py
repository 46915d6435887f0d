"""What a command line names: models, saved modules, and tensors."""
