"""Augmentation against recorded images and exact answers, and its conditioning against its own statistics."""

import math

import numpy as np
import pytest
import torch

import reference_vectors as vectors
from specreg.data.augment import Amounts, Augment, Transform, apply, resample


def image(side=16, channels=3):
    return torch.randn(channels, side, side, generator=torch.Generator().manual_seed(0))


def transform(*, flip_x=False, flip_y=False, inverse=None):
    matrix = np.eye(3) if inverse is None else np.asarray(inverse, dtype=float)
    return Transform(flip_x, flip_y, matrix, np.zeros(9, dtype=np.float32))


def turned(angle):
    c, s = math.cos(angle), math.sin(angle)
    return [[c, -s, 0], [s, c, 0], [0, 0, 1]]


def test_identity_and_flips_are_exact():
    x = image()
    assert torch.equal(apply(x, transform()), x)
    assert torch.equal(apply(x, transform(flip_x=True)), x.flip(-1))
    assert torch.equal(apply(x, transform(flip_y=True)), x.flip(-2))
    assert torch.equal(apply(x, transform(flip_x=True, flip_y=True)), x.flip(-1, -2))


@pytest.mark.parametrize(("dx", "dy"), [(3, 0), (0, -2), (5, 4)])
def test_whole_pixel_translation_moves_content_and_reflects_borders(dx, dy):
    x = image()
    found = apply(x, transform(inverse=[[1, 0, -dx], [0, 1, -dy], [0, 0, 1]]))
    padded = np.pad(x.numpy(), ((0, 0), (8, 8), (8, 8)), mode="reflect")
    np.testing.assert_allclose(found, padded[:, 8 - dy : 24 - dy, 8 - dx : 24 - dx], atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("side", [15, 16])
def test_quarter_turns_are_exact_and_counterclockwise(quarters, side):
    x = image(side)
    found = apply(x, transform(inverse=turned(quarters * math.pi / 2)))
    np.testing.assert_allclose(found, np.rot90(x.numpy(), quarters, axes=(1, 2)), atol=1e-5)


def test_a_smooth_wave_is_rotated_scaled_and_shifted_to_where_it_is_computed():
    side, frequency = 64, 0.11
    y, x = np.mgrid[:side, :side] - (side - 1) / 2

    def wave(u, v):
        return np.cos(2 * math.pi * frequency * (0.6 * u + 0.8 * v) + 0.3)

    matrix = np.array(turned(0.4)) @ np.diag([1.15, 0.9, 1]) @ np.array([[1, 0, 1.3], [0, 1, -2.7], [0, 0, 1]])
    found = resample(wave(x, y)[None].astype(np.float32), matrix)[0]
    expected = wave(*(matrix[:2] @ np.stack([x.ravel(), y.ravel(), np.ones(side * side)]))).reshape(side, side)
    inside = slice(20, 44)  # nothing reflected
    np.testing.assert_allclose(found[inside, inside], expected[inside, inside], atol=0.02)


def test_shrinking_does_not_alias():
    """A wave that the shrunk grid cannot hold becomes grey, not another wave."""
    side = 64
    x = np.cos(2 * math.pi * 0.4 * np.arange(side))[None, None].repeat(side, 1).astype(np.float32)
    found = resample(x, np.diag([1.9, 1.9, 1.0]))
    assert np.abs(found[0, 20:44, 20:44]).max() < 0.15


def test_a_constant_stays_constant():
    x = torch.full((1, 12, 12), 0.7)
    rng = np.random.default_rng(0)
    for _ in range(20):
        found, _ = Augment(1.0)(x, rng)
        torch.testing.assert_close(found, x)


def test_labels_say_what_was_done():
    augment = Augment(0.3)
    drawn = [augment.draw(np.random.default_rng(i), 32, 32) for i in range(4000)]
    labels = np.stack([d.labels for d in drawn])
    used = (labels != 0).mean(0)
    # x-flip, y-flip, scale, cos, sin, stretch cos, stretch sin (turned half of the time), shifts
    assert used == pytest.approx([0.5, 0.15, 0.3, 0.3, 0.3, 0.3, 0.15, 0.3, 0.3], abs=0.03)
    for d in drawn:
        scale = 2 ** (0.2 * d.labels[2])
        assert np.linalg.det(d.inverse) == pytest.approx(1 / scale**2, rel=1e-4)
    alone = [d for d in drawn if not d.labels.any()]
    assert len(alone) > 100
    assert all(np.array_equal(d.inverse, np.eye(3)) and not d.flip_x and not d.flip_y for d in alone)
    shifted = next(d for d in drawn if d.labels[7] and not d.labels[2:7].any())
    assert shifted.inverse[:2, 2] == pytest.approx(-0.125 * 32 * shifted.labels[7:], rel=1e-5)
    rotated = next(d for d in drawn if d.labels[4] and not d.labels[[2, 5, 6, 7, 8]].any())
    angle = math.atan2(rotated.labels[4], rotated.labels[3] + 1)
    np.testing.assert_allclose(rotated.inverse, turned(angle), atol=1e-6)


def test_it_is_a_function_of_the_generator():
    a, b = (Augment(0.5)(image(), np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    with pytest.raises(ValueError, match="probability"):
        Augment(1.5)


PARTS = {
    "xflip": lambda flip: Amounts(flip_x=bool(flip)),
    "yflip": lambda flip: Amounts(flip_y=bool(flip)),
    "scale": lambda n: Amounts(scale=n),
    "rotate_frac": lambda cos, sin: Amounts(angle=math.atan2(sin, cos + 1)),
    "aniso": lambda cos, sin: Amounts(stretch=math.hypot(cos, sin), direction=math.atan2(sin, cos)),
    "translate_frac": lambda n_x, n_y: Amounts(shift_x=n_x, shift_y=n_y),
    "all": lambda x, y, n, cos, sin, *rest: Amounts(
        bool(x), bool(y), n, math.atan2(sin, cos + 1), math.hypot(*rest[:2]), math.atan2(rest[1], rest[0]), *rest[2:]
    ),
}
PLACES = dict(zip(PARTS, ([0], [1], [2], [3, 4], [5, 6], [7, 8], range(9)), strict=True))


@pytest.mark.parametrize("part", PARTS)
def test_images_and_labels_are_the_public_pipeline_s(part):
    """In all six recorded images of each part, 6 pixels inside the border; the pipelines resample differently."""
    augment = Augment(1.0)
    with np.load(vectors.FOLDER / "augment.npz") as file:
        original, images, labels = torch.from_numpy(file["image"]), file[f"{part}/images"], file[f"{part}/labels"]

    def error(found, expected):
        return float(np.sqrt(np.square(found.numpy() - expected)[:, 6:-6, 6:-6].mean()))

    for expected, told in zip(images.astype(np.float32), labels, strict=True):
        amounts = PARTS[part](*told.tolist())
        # (n, r) and (-n, r + π) are told by the same numbers, and are inverse to each other.
        twin = amounts._replace(stretch=-amounts.stretch, direction=amounts.direction + math.pi)
        transforms = [augment.transform(each, 32, 32) for each in (amounts, twin)]
        for transform in transforms:
            assert transform.labels[PLACES[part]] == pytest.approx(told, abs=2e-6)
            assert not np.delete(transform.labels, PLACES[part]).any()
        errors = [error(apply(original, transform), expected) for transform in transforms]
        assert min(errors) < 0.01
        if part == "aniso":
            assert max(errors) > 0.03 or abs(amounts.stretch) < 0.2
