"""A network with kernels and without: equal numbers, eager, compiled and exported."""

import copy
import pickle

import pytest
import torch

from diffusion.networks.kernels import library
from diffusion.networks.kernels.choice import use_kernels, without_kernels
from tests.helpers.kernels import assert_same, compiled, network, normal, outcome

OPERATORS = {"attention", "group_norm_silu", "phase_conv"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def calls(monkeypatch):
    """The kernels that were called, by name."""
    found, call = [], library.call
    for module in "attention", "norm_silu":
        target = f"diffusion.networks.kernels.{module}.call"
        monkeypatch.setattr(target, lambda name, *x: found.append(name) or call(name, *x))
    return found


@pytest.fixture
def compiler():
    yield
    torch.compiler.reset()


def operators(graph):
    return {node.target.name().partition("::")[2] for node in graph.nodes if str(node.target).startswith("diffusion.")}


@compiled
def test_on_and_off(calls):
    made = network()
    on = outcome(made)
    assert {*calls} == {"attention_8", "attention_backward_8", "norm_silu", "norm_silu_backward"}
    calls.clear()
    use_kernels(made, False)
    off = outcome(made)
    assert not calls
    assert_same(on, off)
    use_kernels(made, True)
    assert all(map(torch.equal, outcome(made), on))


@compiled
def test_one_network_does_not_choose_for_another(calls):
    one, other = network(), network()
    use_kernels(one, False)
    outcome(other)
    assert calls


@compiled
def test_off_until_the_end_of_a_block(calls):
    made = network()
    use_kernels(made.middle, False)
    with without_kernels(made):
        outcome(made)
    assert not calls
    assert made.kernels
    assert not made.middle[0].kernels, "as it was before"


def test_the_choice_is_in_no_state_dict_and_no_pickle():
    made, fresh = network(), network()
    use_kernels(made, False)
    assert made.state_dict().keys() == fresh.state_dict().keys()
    assert b"kernels" not in pickle.dumps(made).replace(b"diffusion.networks.kernels", b"")
    assert pickle.loads(pickle.dumps(made)).middle[0].kernels
    assert copy.deepcopy(made).kernels
    assert not made.kernels


@compiled
@pytest.mark.slow
@pytest.mark.parametrize("on", [True, False])
def test_torch_compile(on, compiler):
    made, graphs = network(), []
    use_kernels(made, on)

    def seen(graph, inputs):
        graphs.append(operators(graph.graph))
        return graph

    outcome(made, by=torch.compile(made, fullgraph=True, backend=seen))
    assert graphs == [OPERATORS if on else set()]
    assert_same(outcome(made, by=torch.compile(made, fullgraph=True)), outcome(made))


@compiled
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("on", [True, False])
def test_torch_export(on, strict, compiler):
    made = network()
    use_kernels(made, on)
    x, t = normal(2, 1, 16, 16).detach(), torch.tensor([3.0, 700.0])
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(made, (x, t), dynamic_shapes=({0: batch}, {0: batch}), strict=strict)
    assert operators(program.graph) == (OPERATORS if on else set())
    x, t = torch.cat([x, x, x]), torch.cat([t, t, t])
    torch.testing.assert_close(program.module()(x, t), made(x, t), rtol=1e-5, atol=1e-5)


@compiled
def test_other_precisions_and_devices_are_plain(calls):
    x, t = normal(2, 1, 16, 16).detach(), torch.tensor([3.0, 700.0])
    for change in {"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}:
        network().to(**change)(x.to(**change), t.to(change.get("device", "cpu")))
    assert not calls
