"""Figures: what is drawn is what was given."""

import numpy as np
import pytest
import torch

from diffusion.evaluation import plots
from diffusion.losses.timesteps import LogNormal
from diffusion.losses.weighting import MinSNR
from diffusion.schedule import cosine, linear

pytestmark = pytest.mark.filterwarnings("ignore")


def test_loss_and_band_of_each_part_of_t():
    """Losses of 100 k, ..., 199 k in part k: the mean and the percentiles are known."""
    T, n = 1000, 100
    part = torch.arange(20).repeat_interleave(n)
    t = 1 + part * 50 + torch.arange(20 * n) % 50
    losses = (part + 1) * (100 + torch.arange(20 * n) % n).float()
    order = torch.randperm(20 * n, generator=torch.Generator().manual_seed(0))
    axis = plots.draw_losses(t[order].float(), losses[order], T).axes[0]
    (line,) = axis.lines
    np.testing.assert_allclose(line.get_xdata(), 25 + 50 * np.arange(20))
    np.testing.assert_allclose(line.get_ydata(), 149.5 * np.arange(1, 21))
    corners = axis.collections[0].get_paths()[0].vertices
    third = corners[corners[:, 0] == 125, 1]
    np.testing.assert_allclose([third.min(), third.max()], [3 * 109.9, 3 * 189.1], rtol=1e-6)
    assert axis.get_yscale() == "log"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("losses", [torch.ones(1), torch.ones(2), torch.full((7,), float("nan")), torch.zeros(7)])
def test_losses_that_cannot_be_drawn_break_nothing(tmp_path, losses):
    figure = plots.draw_losses(torch.linspace(1, 30, len(losses)), losses, 1000)  # most parts of t are empty
    assert plots.write_figure(tmp_path / "a.png", figure).exists()


def test_schedule_density_and_weight():
    schedule = cosine()
    t, _ = LogNormal().draw(0, torch.arange(10000), schedule)
    alpha_bar, log_snr, training = plots.draw_training(schedule, t, MinSNR(gamma=5)).axes
    x, y = alpha_bar.lines[0].get_data()
    np.testing.assert_allclose(y, schedule.log_alpha_bar(torch.as_tensor(x)).exp())
    x, y = log_snr.lines[0].get_data()
    np.testing.assert_allclose(y, schedule.log_snr(torch.as_tensor(x)))
    k, weight = training.lines[0].get_data()
    snr = schedule.log_snr(torch.as_tensor(k)).exp()
    np.testing.assert_allclose(weight, (5 / snr).clamp(max=1), rtol=1e-9)  # of the eps error (Hang et al. 2023)
    density = training.patches[0].get_data().values
    assert np.mean(density) == pytest.approx(1)
    assert max(density) > 2 * min(density)


def test_a_schedule_that_ends_in_pure_noise_is_drawn(tmp_path):
    schedule = linear().with_zero_terminal_snr()
    figure = plots.draw_training(schedule, torch.linspace(1, 1000, 100), MinSNR())
    assert plots.write_figure(tmp_path / "a.png", figure).exists()


def test_titles_are_next_to_the_first_image_of_a_row():
    import torch

    picture = torch.zeros(1, 40, 20, dtype=torch.uint8)
    figure = plots.draw_table({"ddim": [(None, "not possible"), (picture, "1 s")]}, ["1 steps", "2 steps"], ["a", "b"])
    axis = figure.axes[1]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b"]
    assert [*axis.get_yticks()] == [10, 30]
