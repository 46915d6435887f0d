"""What a TorchScript program asks of unknown sizes, and what they come to."""
