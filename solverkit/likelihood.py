"""Log-likelihood of data under a pretrained network: by the probability-flow ODE, or as a bound by its SDE."""

from .flow.likelihood import Likelihood, dequantised, log_likelihood

__all__ = ["Likelihood", "dequantised", "log_likelihood"]
