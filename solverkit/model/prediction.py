"""What a network predicts, as two weights: denoised = w_x * x + w_out * output, x in the network's own coordinates.

With alpha and sigma the network's own coefficients:

    epsilon             (x - sigma out) / alpha
    sample, denoised    out
    v_prediction        (alpha x - sigma out) / (alpha^2 + sigma^2)          v = alpha eps - sigma x_0
    flow_prediction     (x - sigma out) / (alpha + sigma)                    u = eps - x_0 (*)
    score               (x + sigma^2 out) / alpha
    edm                 c_skip x + c_out F, F asked at c_in x                Karras et al. 2022, Table 1
    edm_v               c_skip x - c_out F                                   the same network with the sign of v
    autoencoder         x + (sigma / sigma_train)^2 (r(x) - x)               Alain and Bengio 2014, Theorem 1

(*) A flow network predicts dx/dt in its own time. With `sk.Flow()` that time is 0 at data and 1 at noise, and u = eps - x_0
(diffusers' flow pipelines, minRF). With `sk.Flow(data_at=1)` it is 0 at noise and 1 at data, and u = x_0 - eps (torchcfm,
flow_matching, SiT, the rectified-flow code). A network that mixes the two, time in one direction and velocity in the other,
is wrapped with its sign turned: sk.wrap(lambda x, t: -net(x, t), "flow_prediction", schedule).
"""

from __future__ import annotations

import math

from ..errors import DenoiserError

PREDICTIONS = (
    "epsilon", "sample", "denoised", "v_prediction", "flow_prediction", "score", "edm", "edm_v", "autoencoder",
)  # fmt: skip

# What other code calls them; a velocity is told apart by the process.
ALIASES = {
    "eps": "epsilon", "noise": "epsilon", "x0": "sample", "x_0": "sample", "x_start": "sample", "xstart": "sample",
    "pred_x0": "sample", "x1": "sample", "data": "sample", "flow": "flow_prediction", "flow_matching": "flow_prediction",
    "rectified_flow": "flow_prediction", "vector_field": "flow_prediction", "u": "flow_prediction", "f": "edm",
}  # fmt: skip
VELOCITIES = ("v", "velocity", "v_pred", "vpred", "v-prediction")


def meant(name: object, flow: bool) -> str | None:
    """The prediction that a name of another project means; on a flow schedule a velocity is u, elsewhere v."""
    key = str(name).lower()
    if key in VELOCITIES:
        return "flow_prediction" if flow else "v_prediction"
    return ALIASES.get(key)


def denoised_weights(prediction: str, alpha: float, sigma: float, scale: float = 1.0) -> tuple[float, float]:
    """(w_x, w_out) of one of `PREDICTIONS` at the network's own alpha and sigma.

    Args:
        prediction: What the network predicts.
        alpha, sigma: Its own coefficients, x = alpha x_0 + sigma eps.
        scale: sigma_data of "edm" and "edm_v", sigma_train of "autoencoder".

    Raises:
        DenoiserError: the prediction says nothing about x_0 at alpha = 0.
    """
    if prediction in ("sample", "denoised"):
        return 0.0, 1.0
    if prediction in ("epsilon", "score"):
        if alpha == 0:
            raise DenoiserError(
                f"a network that predicts {prediction!r} says nothing about x_0 where alpha = 0 (zero terminal SNR); such "
                "networks predict v or the sample. Pass prediction='v_prediction', or start the grid below alpha = 0."
            )
        return 1 / alpha, (-sigma if prediction == "epsilon" else sigma**2) / alpha
    if prediction == "v_prediction":
        power = alpha**2 + sigma**2
        return alpha / power, -sigma / power
    if prediction == "flow_prediction":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if prediction in ("edm", "edm_v"):
        norm = math.hypot(sigma, scale)
        c_skip, c_out = (scale / norm) ** 2, sigma * scale / norm
        return c_skip, c_out if prediction == "edm" else -c_out
    gain = (sigma / scale) ** 2
    return 1 - gain, gain


def input_scale(prediction: str, sigma: float, sigma_data: float = 1.0) -> float:
    """What x is multiplied by before the network sees it: c_in of "edm" and "edm_v", 1 for all others."""
    return 1 / math.hypot(sigma, sigma_data) if prediction in ("edm", "edm_v") else 1.0
