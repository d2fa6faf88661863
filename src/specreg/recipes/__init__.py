"""Runs by name: one function a recipe, each returning a config tree that YAML and `key=value` may override."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specreg.recipes.checkerboard import checkerboard
from specreg.recipes.dead_leaves import demo
from specreg.recipes.diffwave import diffwave, diffwave_small
from specreg.recipes.edm import EDM_RECIPES, edm_textures
from specreg.recipes.images import textures
from specreg.recipes.turbulence import turbulence

RECIPES: dict[str, Callable[[], dict[str, Any]]] = {
    "demo": demo,
    "checkerboard": checkerboard,
    "textures": textures,
    "edm-textures": edm_textures,
    "turbulence": turbulence,
    **EDM_RECIPES,
    "diffwave": diffwave,
    "diffwave-small": diffwave_small,
}
