import pytest
import torch
from torch import nn

from diffusion.optimization import optimizers
from diffusion.optimization.lr_schedule import Constant
from diffusion.optimization.muon import Muon, orthogonalised


def _network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32 * 36, 8), nn.LayerNorm(8)
    return nn.Sequential(*layers).double()


def _built(network, **options):
    return Muon(**{"lr": 1e-2, "warmup_steps": 0} | options).build(network.parameters())[0]


def _steps(network, optimizer, n, seed=1):
    torch.manual_seed(seed)
    for _ in range(n):
        optimizer.zero_grad()
        network(torch.randn(4, 16, 8, 8).double()).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (64, 20)])
def test_singular_values_come_near_1_and_the_singular_vectors_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    rotated = u.T @ orthogonalised(matrix, 5) @ vh.T
    values = rotated.diagonal()
    assert 0.6 < values.min() < values.max() < 1.25
    torch.testing.assert_close(rotated, values.diag(), rtol=0, atol=1e-6)


def test_filters_are_matrices_of_their_outputs_and_the_rest_is_adamw():
    network = _network()
    optimizer = _built(network)
    assert optimizer.param_groups[0]["params"] == [network[0].weight]  # the linear layer has 8 rows
    before = network[0].weight.detach().clone()
    _steps(network, optimizer, 1)
    change = (before - network[0].weight).detach().flatten(1) / (1e-2 * 0.2 * 144**0.5)
    values = torch.linalg.svdvals(change)
    assert 0.6 < values.min() < values.max() < 1.25


def test_the_other_parameters_are_torchs_adamw():
    ours, theirs = _network(), _network()
    options = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": 0.1}
    for parameter in [ours[0].weight, theirs[0].weight]:
        parameter.requires_grad_(False)
    one = Muon(**options, warmup_steps=0).build([each for each in ours.parameters() if each.requires_grad])[0]
    other = torch.optim.AdamW([each for each in theirs.parameters() if each.requires_grad], **options)
    _steps(ours, one, 10)
    _steps(theirs, other, 10)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_it_resumes_exactly():
    straight, halves = _network(), _network()
    _steps(straight, (optimizer := _built(straight)), 3, seed=1)
    _steps(straight, optimizer, 3, seed=2)
    _steps(halves, (first := _built(halves)), 3, seed=1)
    names = [name for name, _ in halves.named_parameters()]
    second = _built(halves)
    order = [name for group in first.param_groups for each in group["params"]
             for name, one in halves.named_parameters() if one is each]  # fmt: skip
    second.load_state_dict(optimizers.by_position(optimizers.by_name(first.state_dict(), order), order))
    _steps(halves, second, 3, seed=2)
    assert {*names} == {*order}
    for a, b in zip(straight.parameters(), halves.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_parameter_without_a_gradient_stays():
    network = _network()
    optimizer = _built(network, weight_decay=0.5, decay=Constant())
    before = [each.detach().clone() for each in network.parameters()]
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
