"""Fourier and wavelet transforms over trailing axes, and power spectra."""
