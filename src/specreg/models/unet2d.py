"""diffusers' UNet2DModel under the call of the other networks, and a reader for its folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from specreg._torch_files import load_safetensors

_NEEDS = 'model kind "unet2d" needs diffusers: pip install "specreg[diffusers]"'


class UNet2D(nn.Module):
    """diffusers' UNet2DModel with these options, called as `(x [B, C, H, W], t [B], labels [B])`."""

    def __init__(self, **options: Any):
        super().__init__()
        try:
            from diffusers import UNet2DModel
        except ImportError as error:
            raise ImportError(_NEEDS) from error
        self.unet: Any = UNet2DModel(**options)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the network's output in the shape of `x`; `labels` `[B]` for a network with classes."""
        out: Tensor = self.unet(x, t, class_labels=labels).sample
        return out


def options_of(network: UNet2D) -> dict[str, Any]:
    """Return the options that build the same network again, as plain values."""
    return {name: value for name, value in network.unet.config.items() if not name.startswith("_")}


def from_options(options: Mapping[str, Any]) -> UNet2D:
    """Return the network of these options, with initial weights."""
    return UNet2D(**options)


def home(folder: Path) -> Path:
    """Return where a diffusers model or pipeline folder has its network; FileNotFoundError where it holds none."""
    for place in (folder / "unet", folder):
        if (place / "config.json").is_file():
            return place
    raise FileNotFoundError(f"{folder}: expected a diffusers folder with config.json, or unet/config.json")


def from_folder(folder: Path) -> UNet2D:
    """Return the UNet2DModel of a diffusers model or pipeline folder, read from safetensors; nothing is downloaded.

    Raises FileNotFoundError where the folder holds no model, ValueError for other networks and tensors that do not fit.
    """
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise ImportError(_NEEDS) from error

    from specreg.models.pretrained import check_tensors

    place = home(folder)
    config: dict[str, Any] = dict(UNet2DModel.load_config(place, local_files_only=True))
    if config.get("_class_name") != "UNet2DModel":
        raise ValueError(f"{place / 'config.json'}: expected a UNet2DModel; got {config.get('_class_name')!r}")
    weights = place / "diffusion_pytorch_model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"{place}: expected {weights.name}; there is none")
    network = UNet2D(**{name: value for name, value in config.items() if not name.startswith("_")})
    _, tensors = load_safetensors(weights)
    check_tensors(tensors, network.unet.state_dict(), str(weights))
    network.unet.load_state_dict(tensors)
    return network
