"""What the trainer cannot do on the processes and the device that it is given."""

from __future__ import annotations

from accelerate import Accelerator

from specreg.config import Config, ConfigError


def refuse_unsupported(accelerator: Accelerator, config: Config) -> None:
    """Raise ConfigError for what the trainer cannot do on these processes and this device."""
    refuse_sharding(accelerator)
    settings = config.training
    parts = settings.accumulate * accelerator.num_processes
    if settings.batch_size % parts:
        raise ConfigError(
            f"training.batch_size: expected a multiple of {parts} (accumulate × processes); got {settings.batch_size}"
        )
    if settings.precision == "fp16" and accelerator.scaler is None:
        raise ConfigError(
            f"training.precision: fp16 needs a GPU, where gradients are scaled; on this device ({accelerator.device}) "
            "expected bf16 or no; got fp16"
        )


def refuse_sharding(accelerator: Accelerator) -> None:
    """Raise ConfigError where a launcher shards the weights: checkpoints and the weight average need them whole."""
    supported = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU")
    if accelerator.distributed_type.name not in supported:
        raise ConfigError(
            "accelerate: expected one process or plain data parallelism (DDP); got "
            f"{accelerator.distributed_type.name}, which the trainer does not support. The losses do: add them to a "
            "training loop of your own"
        )
