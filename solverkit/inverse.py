"""Inverse problems y = A x_0 + noise: operators with their adjoints, and denoisers that know what was measured.

    operator = sk.inverse.average_pool((1, 28, 28), 4)
    posterior = sk.inverse.mmps(denoiser, operator, values, noise_std=0.05)
    sk.sample(posterior, "ddpm", nfe=50, num_samples=16)
"""

from .measurement.linear import Linear
from .measurement.measurement import Measurement
from .measurement.operators import average_pool, blur, inpainting, matrix, random_projection
from .model.guidance.measured import MMPS, TMPD, DiffPIR, Measured, PiGDM, diffpir, measured, mmps, pigdm, tmpd

__all__ = [
    "MMPS",
    "TMPD",
    "DiffPIR",
    "Linear",
    "Measured",
    "Measurement",
    "PiGDM",
    "average_pool",
    "blur",
    "diffpir",
    "inpainting",
    "matrix",
    "measured",
    "mmps",
    "pigdm",
    "random_projection",
    "tmpd",
]
