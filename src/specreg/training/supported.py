"""What the trainer cannot do on the processes and the device that it is given."""

from __future__ import annotations

from accelerate import Accelerator, PartialState

from specreg.config import Config, ConfigError


def refuse_unsupported(config: Config, state: PartialState) -> None:
    """Raise ConfigError for settings that do not go with these processes and their device."""
    settings = config.training
    parts = settings.accumulate * state.num_processes
    if settings.batch_size % parts:
        raise ConfigError(
            f"training.batch_size: expected a multiple of {parts} (accumulate × processes); got {settings.batch_size}"
        )
    if settings.precision == "fp16" and state.device.type == "cpu":  # accelerate would compute in float32, unscaled
        raise ConfigError("training.precision: fp16 needs a GPU; expected bf16 or no on a CPU; got fp16")


def refuse_sharding(accelerator: Accelerator) -> None:
    """Raise ConfigError where a launcher shards the weights: checkpoints and the weight average need them whole."""
    supported = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU")
    if accelerator.distributed_type.name not in supported:
        raise ConfigError(
            "accelerate: expected one process or plain data parallelism (DDP); got "
            f"{accelerator.distributed_type.name}, which the trainer does not support. The losses do: add them to a "
            "training loop of your own"
        )
