"""x_t and the prediction of x_0, at each t, of the images that are validated."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import nn

from diffusion.conditioners.condition import Condition
from diffusion.ground import images, random
from diffusion.lit.training_inputs import TrainingPair
from diffusion.process import q_sample
from diffusion.schedule import broadcast
from diffusion.training.callbacks.predictions import Predictions
from tests.helpers.lit_models import digits, small_model

pytestmark = pytest.mark.filterwarnings("ignore")


class Knows(nn.Module):
    """The eps that made x_t, since it knows the images."""

    def __init__(self, schedule, x_0):
        super().__init__()
        self.schedule, self.x_0 = schedule, x_0

    def forward(self, x_t, step, condition):
        alpha, sigma = self.schedule(step + 1)
        return (x_t - broadcast(alpha, x_t) * self.x_0[: len(x_t)]) / broadcast(sigma, x_t)


def cells(path):
    """The pixels of each picture: (image, x_t or x_0, t, 8, 8)."""
    whole = np.asarray(Image.open(path))
    drawn = whole[whole.shape[0] - 8 * 58 :, whole.shape[1] - 9 * 58 :]
    assert drawn.shape < whole.shape  # text above and in front
    return torch.tensor(drawn.reshape(4, 2, 58, 9, 58).transpose(0, 1, 3, 2, 4)[..., 4:-1:7, 4:-1:7])


def test_of_a_denoiser_that_knows_the_image_every_prediction_is_the_image(tmp_path):
    model, (data, _) = small_model(), digits().split("val")
    x_0, schedule = images.from_uint8(data[:4]), model.denoiser.schedule
    model.denoiser.network = Knows(schedule, x_0)
    callback = Predictions(tmp_path)
    pair = TrainingPair(data[:4], Condition(4), *torch.zeros(4, 4))
    callback.on_validation_batch_end(None, model, None, pair, 0)
    written = cells(callback.draw(model, "now")["preview/x_0"])
    assert torch.equal(written[:, 0, 0], data[:4, 0])
    assert (written[:, 1].int() - data[:4].int()).abs().max() <= 1
    eps = random.normal(0, "validation/eps", torch.arange(4), (1, 8, 8))
    for column, t in enumerate(range(125, 1001, 125), start=1):
        expected = images.to_uint8(q_sample(schedule, x_0, torch.tensor(t), eps))[:, 0]
        assert torch.equal(written[:, 0, column], expected)


def test_the_first_validation_images_each_epoch_and_nothing_in_the_sanity_check(tmp_path):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, max_steps=20,
        enable_checkpointing=False, callbacks=[Predictions(tmp_path)], use_distributed_sampler=False,
        check_val_every_n_epoch=2,
    )  # fmt: skip
    trainer.fit(small_model(), digits())
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x_0_epoch_0002_step_0000010.png", "x_0_epoch_0004_step_0000020.png"]
    first, second = map(cells, files)
    validated = next(iter(digits().val_dataloader())).x[:4, 0]
    for written in (first, second):
        assert torch.equal(written[:, 0, 0], validated)
        assert torch.equal(written[:, 1, 0], validated)
    assert torch.equal(first[:, 0], second[:, 0])  # x_t
    assert not torch.equal(first[:, 1], second[:, 1])  # what is predicted of it
