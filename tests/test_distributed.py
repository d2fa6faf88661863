"""The term on two processes, each with half of a batch, gives the gradients and the λ of the whole batch on one."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

import specreg

WRAPPERS = ["ddp", "compiled ddp", "fsdp"]


class Net(nn.Module):
    """A denoiser of `[B, 3, 8, 8]`, wide enough for a shard on either rank."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1))

    def forward(self, x):
        return x + self.layers(x)


def gradients(model, regularizer, x0, noise):
    """Two steps, so that an automatic λ has learned something; the second's gradients, whole, and its λ."""
    level = specreg.NoiseLevel.edm(torch.full((len(x0),), 0.5))
    for _ in range(2):
        model.zero_grad()
        x0_hat = model(x0 + 0.5 * noise)
        base = (x0_hat - x0).square().mean()
        term = regularizer(x0_hat, x0, level, base_loss=base, output=x0_hat)
        (base + term.loss).backward()
    found = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
    return found, term.lam.detach()


def regularizers():
    return {
        "fixed": specreg.SpectralRegularizer("amplitude_phase", weight=0.3),
        "auto": specreg.SpectralRegularizer("haar", weight=specreg.AutoWeight(ratio=1.0)),
    }


def case():
    torch.manual_seed(0)
    return Net(), torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)


def on_one_of_two(rank, wrapper, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model, x0, noise = case()
    mine = slice(2 * rank, 2 * rank + 2)
    for name, regularizer in regularizers().items():
        wrapped = copy.deepcopy(model)
        if wrapper == "fsdp":
            from torch.distributed.fsdp import fully_shard

            fully_shard(wrapped, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
        else:
            wrapped = nn.parallel.DistributedDataParallel(wrapped)
            if wrapper == "compiled ddp":
                wrapped = torch.compile(wrapped, backend="aot_eager")
        torch.save(gradients(wrapped, regularizer, x0[mine], noise[mine]), f"{folder}/{name}{rank}.pt")
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads may abort a process that takes itself apart


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_processes_are_one_batch(wrapper, tmp_path):
    if wrapper == "fsdp" and not hasattr(pytest.importorskip("torch.distributed.fsdp"), "fully_shard"):
        pytest.skip("this torch has no fully_shard")
    ranks = [subprocess.Popen([sys.executable, __file__, str(rank), wrapper, tmp_path]) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=300) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    model, x0, noise = case()
    for name, regularizer in regularizers().items():
        expected, lam = gradients(model, regularizer, x0, noise)
        for rank in (0, 1):
            found, its_lam = torch.load(tmp_path / f"{name}{rank}.pt")
            torch.testing.assert_close(its_lam, lam, rtol=1e-5, atol=0)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    on_one_of_two(int(sys.argv[1]), *sys.argv[2:])
