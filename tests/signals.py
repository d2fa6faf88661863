"""Random signals for property tests: shapes, dtypes, scales and strides."""

import torch
from hypothesis import strategies as st


@st.composite
def shapes(draw, most=70, batch=3):
    """Shapes `(B, C, *space)`: one to three axes of 1 to `most`, of at most some ten thousand values."""
    ndim = draw(st.integers(1, 3))
    limit = {1: most, 2: most, 3: min(most, 70)}[ndim]
    space = [draw(st.integers(1, limit)) for _ in range(ndim)]
    while torch.Size(space).numel() > 8000:  # one long axis stays long
        space[space.index(sorted(space)[-2])] //= 2
    return (draw(st.integers(1, batch)), draw(st.integers(1, 2)), *space)


def signal(shape, seed, scale, dtype):
    """Return noise of a scale; hypothesis shrinks the seed, not the values."""
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def strided(x, way):
    """Return the same values in other strides: 0 as they are, 1 every second one, 2 axes in another order."""
    if way == 1:
        return torch.stack([x, torch.zeros_like(x)], dim=-1)[..., 0]
    if way == 2:
        order = (*range(x.ndim)[::-1],)
        return x.permute(order).contiguous().permute(order)
    return x
