"""Discrete Fourier transforms: ``torch.fft``, ``stft`` and ``istft``."""
