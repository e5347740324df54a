"""Gaussian statistics of data: denoiser and flow in closed form, and where they come from."""
