"""A PyTorch program becomes a Torch dialect module: ``fx/``, ``torchscript/`` and ``lazy/``."""
