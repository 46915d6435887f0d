"""What ``torch.compile`` and scripted functions hand over, as compiled code."""
