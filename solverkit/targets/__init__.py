"""Targets with exact denoiser, score, density and flow."""
