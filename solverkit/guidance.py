"""Denoisers around denoisers: classifier-free guidance and what belongs to it, classifier guidance, clipping.

Each returns a denoiser with the schedule, shape and device of the one inside, so they nest and go wherever a denoiser goes:

    d = sk.guidance.classifier_free(net.with_inputs(class_labels=3), net.with_inputs(class_labels=10), scale=2.0)
    d = sk.guidance.dynamic_threshold(d)
"""

from .model.guidance.classifier_free import ClassifierFree, classifier_free
from .model.guidance.given import Given, given
from .model.guidance.gradients import Classifier, Posterior, classifier, posterior
from .model.guidance.plus_plus import PlusPlusScale, cfg_plus_plus
from .model.guidance.rescale import Rescale, rescale
from .model.guidance.thresholds import Clip, DynamicThreshold, clip, dynamic_threshold
from .model.guidance.wrapped import Wrapped

__all__ = [
    "Classifier",
    "ClassifierFree",
    "Clip",
    "DynamicThreshold",
    "Given",
    "PlusPlusScale",
    "Posterior",
    "Rescale",
    "Wrapped",
    "cfg_plus_plus",
    "classifier",
    "classifier_free",
    "clip",
    "dynamic_threshold",
    "given",
    "posterior",
    "rescale",
]
