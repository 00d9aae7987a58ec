"""Sketches: linear, unbiased, and good enough to draw a path by."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gradwatch.probe.sketch import SIZE, sketch
from torch import Tensor, nn

Matrix = npt.NDArray[np.float64]

SHAPES = [(40, 30), (30,), (), (7, 3, 2)]


def drawn(seed: int, dtype: torch.dtype = torch.float32, shapes: list[tuple[int, ...]] | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes or SHAPES]


def product(a: list[Tensor], b: list[Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))


def test_it_is_linear() -> None:
    a, b = drawn(1), drawn(2)
    both = [3 * x - 2 * y for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(sketch(both, 5), 3 * sketch(a, 5) - 2 * sketch(b, 5), rtol=1e-5, atol=1e-4)
    assert torch.equal(sketch([torch.zeros(shape) for shape in SHAPES], 5), torch.zeros(SIZE))


@pytest.mark.parametrize("size", [5, 64, SIZE])
def test_every_element_goes_with_a_sign_to_its_place(size: int) -> None:
    """A unit vector for every element shows the matrix that is never stored."""
    shapes: list[tuple[int, ...]] = [(4, 5), (), (3,)]
    columns = []
    for place in range(24):
        whole = torch.zeros(24)
        whole[place] = 1.0
        parts = torch.split(whole, [20, 1, 3])
        columns.append(sketch([part.view(shape) for part, shape in zip(parts, shapes, strict=True)], 3, size))
    matrix = torch.stack(columns, 1)
    assert matrix.abs().sum(0).tolist() == [1.0] * 24
    assert [int(column.abs().argmax()) for column in matrix.T] == [place % size for place in range(24)]
    assert 4 < (matrix.sum(0) > 0).sum() < 20
    weights = drawn(4, shapes=shapes)
    flat = torch.cat([weight.reshape(-1) for weight in weights])
    torch.testing.assert_close(sketch(weights, 3, size), matrix @ flat)


def test_long_weights_are_folded_piece_by_piece() -> None:
    """With the signs divided out, by sketching ones and the numbers 0, 1, 2... one after the other."""
    count = 3 * 65_536 + 1234
    ones, powers = torch.ones(count), torch.zeros(count)
    powers[-1] = 1.0
    last = sketch([powers], 8)
    assert last.nonzero().flatten().tolist() == [(count - 1) % SIZE]
    whole = sketch([ones], 8)
    apart = sketch([ones[:100_000], ones[100_000:]], 8)
    assert torch.equal(whole, apart)
    # About count / SIZE signs in each place.
    assert whole.square().mean().item() == pytest.approx(count / SIZE, rel=0.2)


def test_a_seed_gives_the_same_and_leaves_the_global_generator_alone() -> None:
    weights = [nn.Parameter(weight) for weight in drawn(3)]
    versions = [weight._version for weight in weights]
    state = torch.get_rng_state()
    one = sketch(weights, 1)
    assert torch.equal(one, sketch(weights, 1)) and not torch.equal(one, sketch(weights, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.shape == (SIZE,) and one.dtype is torch.float32 and not one.requires_grad
    assert [weight._version for weight in weights] == versions


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_sketched_as_their_values(dtype: torch.dtype) -> None:
    weights = drawn(6, dtype)
    torch.testing.assert_close(sketch(weights, 2), sketch([weight.float() for weight in weights], 2))


def test_inner_products_are_unbiased_with_the_deviation_that_is_promised() -> None:
    shapes: list[tuple[int, ...]] = [(200, 150), (77,)]
    a, b = drawn(7, shapes=shapes), drawn(8, shapes=shapes)
    # Not orthogonal, so that a bias would show.
    b = [x + y for x, y in zip(a, b, strict=True)]
    lengths = math.sqrt(product(a, a) * product(b, b))
    errors = []
    for seed in range(400):
        estimate = float((sketch(a, seed).double() * sketch(b, seed).double()).sum())
        errors.append((estimate - product(a, b)) / lengths)
    deviation = float(np.std(errors))
    # (1 + cos**2) / size, of which sqrt(2 / size) is the most.
    cosine = product(a, b) / lengths
    assert deviation == pytest.approx(math.sqrt((1 + cosine**2) / SIZE), rel=0.15)
    assert deviation < math.sqrt(2 / SIZE)
    assert abs(float(np.mean(errors))) < 4 * deviation / math.sqrt(400)


def test_weights_of_two_devices_get_independent_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradwatch.probe.sketch.by_device", lambda weights: [[0], [1]])
    same = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    estimates = [float((sketch([same, same], seed).double() ** 2).sum()) for seed in range(50)]
    # With the same signs both halves would add up to twice as much.
    assert np.mean(estimates) == pytest.approx(2 * float(same.square().sum()), rel=0.05)


def trained_path() -> list[list[Tensor]]:
    """The weights of a small network at each of 200 steps of stochastic gradient descent, and before."""
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(parameter.shape[-1], 1) ** 0.5)
    x, y = torch.randn(256, 20, generator=generator), torch.randint(0, 4, (256,), generator=generator)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    path = [[parameter.detach().clone() for parameter in network.parameters()]]
    for _ in range(200):
        batch = torch.randint(0, 256, (32,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(x[batch]), y[batch]))
        optimizer.step()
        path.append([parameter.detach().clone() for parameter in network.parameters()])
    return path


def plane(points: Matrix) -> tuple[Matrix, Matrix]:
    """Coordinates in the first two principal components and their shares of the variance."""
    left, values, _ = np.linalg.svd(points - points.mean(0), full_matrices=False)
    coordinates: Matrix = left[:, :2] * values[:2]
    shares: Matrix = values[:2] ** 2 / (values**2).sum()
    return coordinates, shares


def test_a_path_drawn_by_its_sketches_is_the_path() -> None:
    path = trained_path()
    exact, shares = plane(np.stack([torch.cat([w.flatten() for w in point]).double().numpy() for point in path]))
    size = np.linalg.norm(exact, axis=1).max()
    errors = []
    for seed in range(5):
        found, sketched = plane(np.stack([sketch(point, seed).double().numpy() for point in path]))
        # Either may come out mirrored.
        found = found * np.sign((found * exact).sum(0))
        errors.append(float(np.sqrt(((found - exact) ** 2).sum(1).mean()) / size))
        assert sketched == pytest.approx(shares, abs=0.03)
    assert np.mean(errors) < 0.05
