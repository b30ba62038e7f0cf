"""An operator by itself: called directly or by torch's dispatcher."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from diffusion.networks.kernels.attention import attention
from diffusion.networks.kernels.norm_silu import group_norm_silu
from diffusion.networks.kernels.upsample_conv import phase_conv
from tests.helpers.kernels import compiled, network, normal

pytestmark = compiled

CASES = {
    "attention": (attention, [(3, 3, 5, 8, 20)], []),
    "group_norm_silu": (group_norm_silu, [(3, 8, 5, 5), (8,), (8,)], [2, 1e-5]),
    "phase_conv": (phase_conv, [(2, 8, 4, 6), (12, 8, 2, 2), (12,)], []),
}


@pytest.fixture(params=CASES)
def case(request):
    """(operator, inputs with gradients, other inputs)"""
    operator, shapes, others = CASES[request.param]
    return operator, [normal(*shape) for shape in shapes], others


def first(result):
    return result if isinstance(result, torch.Tensor) else result[0]


def value_and_gradients(call, inputs, others):
    out = first(call(*inputs, *others))
    return [out, *torch.autograd.grad(out.square().sum(), inputs)]


def test_direct_calls_and_torch_dispatcher_give_the_same_bits(case):
    operator, inputs, others = case
    direct, dispatched = (value_and_gradients(call, inputs, others) for call in (operator, operator.registered))
    assert all(map(torch.equal, direct, dispatched))


def test_one_and_two_threads_give_the_same_bits(case):
    threads, found = torch.get_num_threads(), []
    operator, inputs, others = case
    try:
        for count in 1, 2:
            torch.set_num_threads(count)
            found.append(value_and_gradients(operator, inputs, others))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, *found))


def test_a_second_derivative_is_refused(case):
    operator, inputs, others = case
    for call in operator, operator.registered:
        out = first(call(*inputs, *others))
        gradient, *_ = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.sum().backward()


def test_a_subclass_of_tensor_goes_by_torch_dispatcher():
    x = normal(3, 8, 5, 5).detach()
    given = x, torch.ones(8), torch.zeros(8), 2, 1e-5
    assert torch.equal(group_norm_silu(nn.Parameter(x), *given[1:])[0], group_norm_silu(*given)[0])
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made = network()
        assert made(mode.from_tensor(torch.ones(2, 1, 16, 16)), torch.ones(2)).shape == (2, 1, 16, 16)
