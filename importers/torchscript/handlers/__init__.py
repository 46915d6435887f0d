"""How each kind of TorchScript instruction is evaluated."""
