"""SGLang-Diffusion with a sampler of solverkit; read in sglang 0.5.23.

Its scheduler loader takes the class that `--scheduler-class-override` names, else the `_class_name` of
scheduler_config.json, from its registry (multimodal_gen/runtime/loader/component_loaders/scheduler_loader.py, lines 49 to
66), and the registry is open: `ModelRegistry.register_model` (multimodal_gen/runtime/models/registry.py, line 217), from
a package that SGLANG_EXTERNAL_MODEL_PACKAGE names (runtime/utils/external_model_package.py) or a plugin of the
entry-point group `sglang.multimodal_gen.plugins` (runtime/platforms/plugins.py, line 25):

    SGLANG_EXTERNAL_MODEL_PACKAGE=sglang_plugin SOLVERKIT_SAMPLER=unipc:order=3 \
        sglang generate --model-path Qwen/Qwen-Image --scheduler-class-override SolverKitScheduler --prompt "a lighthouse"

A scheduler of solverkit that was saved beside the weights (`scheduler.save_pretrained`) names itself in its config and
needs no override. The loader hands over the config without the class that wrote it, which is found by its keys. A request
gets a deep copy where it may run beside others (pipelines_core/diffusion_scheduler_utils.py, line 77). Rollouts
(`batch.rollout`) go through SGLang's own flow-matching schedulers: take `sk.rollout` or `step(..., log_prob=)` there.
"""

from __future__ import annotations

import os
from typing import Any

from solverkit import SolverKitScheduler

NAME = "SolverKitScheduler"
SAMPLER = "SOLVERKIT_SAMPLER"  # environment: a traceable sampler, its options behind its name; else what the config says


def scheduler(**config: Any) -> SolverKitScheduler:
    """What SGLang calls as the class, with the content of scheduler_config.json."""
    chosen = {"sampler": os.environ[SAMPLER]} if SAMPLER in os.environ else {}
    return SolverKitScheduler.from_config(config, **chosen)  # type: ignore[no-any-return]


def register() -> None:
    """Name it in SGLang's registry."""
    from sglang.multimodal_gen.runtime.models.registry import ModelRegistry

    ModelRegistry.register_model(NAME, f"{__name__}:scheduler")


if os.environ.get("SGLANG_EXTERNAL_MODEL_PACKAGE") == __name__:  # SGLang imports it and calls nothing
    register()
