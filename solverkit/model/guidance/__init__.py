"""Denoisers around denoisers: guidance, clipping, thresholding."""
