"""diffusers' LoRA loop with the spectral term: the adapter's weights are trained, λ is in Accelerate's checkpoints.

python examples/diffusers_lora.py
"""

import tempfile
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import LoraConfig

import specreg

torch.manual_seed(0)


def latents(count: int) -> torch.Tensor:
    """Stand-in for your encoded images: gratings, [count, 4, 16, 16]."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    k = torch.rand(count, 2, 4, 1, 1) * 2
    return torch.cos(k[:, 0] * x + k[:, 1] * y)


unet = UNet2DConditionModel(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(16, 16), cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4, layers_per_block=1,
)  # fmt: skip
unet.requires_grad_(False)
unet.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["to_k", "to_q", "to_v", "conv1", "conv2", "conv_out"]))
adapter = [p for p in unet.parameters() if p.requires_grad]
scheduler = DDPMScheduler(prediction_type="v_prediction")
accelerator = Accelerator(cpu=True)
unet, optimizer = accelerator.prepare(unet, torch.optim.AdamW(adapter, lr=1e-2))
regularizer = specreg.SpectralRegularizer(["amplitude", "haar"], weight="auto")
accelerator.register_for_checkpointing(regularizer)  # before load_state

for step in range(60):
    x0 = latents(8)
    noise, t = torch.randn_like(x0), torch.randint(scheduler.config.num_train_timesteps, (8,))
    x_t, target = scheduler.add_noise(x0, noise, t), scheduler.get_velocity(x0, noise, t)
    output = unet(x_t, t, torch.randn(8, 5, 16)).sample
    loss = F.mse_loss(output, target)

    level = specreg.NoiseLevel.from_diffusers(scheduler, t)  # 1: the noise level of each image
    given: Any = {"prediction": scheduler, "x0": x0, "x_t": x_t, "check": True}  # x_t for the first check
    term = regularizer.from_output(output, target, level, **given, base_loss=loss)  # 2: the term

    accelerator.backward(loss + term.loss)
    optimizer.step()
    optimizer.zero_grad()
    if step % 19 == 0:
        print(f"step {step + 1}: base loss {loss:.3f}, spectral term {term.loss:.3f}, λ {term.lam:.3f}")
with tempfile.TemporaryDirectory() as folder:
    accelerator.save_state(folder)
