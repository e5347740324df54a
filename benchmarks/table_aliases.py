"""Tables of docs/coming-from.md: names from elsewhere, of solverkit/registry/aliases.py."""

from __future__ import annotations

from pathlib import Path

from markdown_table import table

from solverkit.registry.aliases import GRIDS, SAMPLERS, Alias


def _shown(aliases: dict[str, Alias], of: str) -> str:
    lines = [
        [f"`{name}`", f"`{alias.means}`" if alias.means else "-", alias.instead]
        for name, alias in aliases.items()
        if of in alias.of
    ]
    return table(["there", "here, exactly", "else, what to write"], lines)


def classes(results: Path) -> str:
    """Scheduler classes of diffusers."""
    return _shown(SAMPLERS, "diffusers")


def functions(results: Path) -> str:
    """Sampler names of k-diffusion, which are ComfyUI's too."""
    return _shown(SAMPLERS, "k-diffusion")


def comfyui(results: Path) -> str:
    """The sampler names that ComfyUI adds."""
    return _shown({name: alias for name, alias in SAMPLERS.items() if alias.of == "ComfyUI"}, "ComfyUI")


def grids(results: Path) -> str:
    """Scheduler names of all three."""
    return _shown(GRIDS, "")


TABLES = {
    "aliases-classes": classes, "aliases-functions": functions, "aliases-comfyui": comfyui, "aliases-grids": grids,
}  # fmt: skip
