"""What is known of PyTorch's ops: by which name they are called, what they touch, whether they draw."""
