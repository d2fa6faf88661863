"""Spectral regularization for diffusion models."""
