import torch

from diffusion.ground import random


def test_a_million_streams_are_all_different():
    seeds = random.stream_seeds(0, "sample", torch.arange(1_000_000))
    assert seeds.unique().numel() == 1_000_000
    assert seeds.min() >= 0
    assert seeds.max() < 2**32


def test_indices_beyond_32_bits_get_other_streams():
    low = torch.arange(1000)
    assert (random.stream_seeds(0, "a", low) != random.stream_seeds(0, "a", low + 2**32)).all()


def test_normal_has_the_moments_of_a_standard_normal():
    noise = random.normal(0, "train/eps", torch.arange(4000), (1, 8, 8)).double()
    n = noise.numel()
    assert abs(noise.mean()) < 4 / n**0.5
    assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((noise**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((noise**4).mean() - 3) < 4 * (96 / n) ** 0.5


def test_uniform_is_uniform():
    u = random.uniform(3, "train/t", torch.arange(100_000))
    counts = torch.histc(u, bins=50, min=0, max=1)
    chi_square = ((counts - 2000) ** 2 / 2000).sum()
    assert chi_square < 49 + 5 * (2 * 49) ** 0.5
    assert u.min() >= 0
    assert u.max() < 1


def _correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs().item()


def test_each_argument_changes_all_of_the_noise():
    index, shape = torch.arange(1000), (1, 8, 8)
    noise = random.normal(0, "sample", index, shape)
    bound = 4 / noise.numel() ** 0.5
    assert _correlation(noise, random.normal(1, "sample", index, shape)) < bound
    assert _correlation(noise, random.normal(2**32, "sample", index, shape)) < bound
    assert _correlation(noise, random.normal(0, "preview", index, shape)) < bound
    assert _correlation(noise[:-1], noise[1:]) < bound


def test_neighbouring_indices_give_independent_uniforms():
    u = random.uniform(0, "train/t", torch.arange(100_000))
    for lag in (1, 2, 7, 64):
        assert _correlation(u[lag:], u[:-lag]) < 4 / 1e5**0.5


def test_noise_does_not_depend_on_how_the_batch_is_split():
    index, shape = torch.arange(10) + 500, (3, 4, 4)
    whole = random.normal(7, "train/eps", index, shape)
    parts = [random.normal(7, "train/eps", part, shape) for part in index.split([1, 6, 3])]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole[3], random.normal(7, "train/eps", index[3:4], shape)[0])


def test_streams_go_on_and_start_with_normal():
    index, shape = torch.tensor([5, 2, 9]), (1, 4, 4)
    streams = random.Streams(1, "sample", index, shape)
    first, second = streams.normal(), streams.normal()
    assert torch.equal(first, random.normal(1, "sample", index, shape))
    assert _correlation(first, second) < 0.6
    alone = random.Streams(1, "sample", index[1:2], shape)
    assert torch.equal(first[1], alone.normal()[0])
    assert torch.equal(second[1], alone.normal()[0])


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    random.normal(0, "a", torch.arange(4), (2,))
    random.uniform(0, "a", torch.arange(4))
    random.permutation(0, "a", 10)
    random.Streams(0, "a", torch.arange(4), (2,)).normal()
    assert torch.equal(before, torch.get_rng_state())


def test_permutation_is_one_and_depends_on_its_purpose():
    order = random.permutation(0, "order/0", 1000)
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert torch.equal(order, random.permutation(0, "order/0", 1000))
    assert not torch.equal(order, random.permutation(0, "order/1", 1000))
