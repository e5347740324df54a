"""Targets whose denoiser, score, density and (for one Gaussian) probability-flow map are known exactly."""

from .targets.conditioned import conditioned, posterior
from .targets.exact import ExactDenoiser, gaussian, mixture
from .targets.gaussian_mixture import GaussianMixture
from .targets.series import series

__all__ = ["ExactDenoiser", "GaussianMixture", "conditioned", "gaussian", "mixture", "posterior", "series"]
