"""data.png: the images of the first batch, as the network sees them, under what it is given of each."""

import numpy as np
import torch
from PIL import Image

from diffusion.conditioners.condition import Condition
from diffusion.conditioners.label import Label
from diffusion.conditioners.vector import Vector
from diffusion.training.callbacks.first_batch import FirstBatch, rows
from tests.helpers.commands import command, tiny


def test_a_run_draws_the_batch_that_it_is_trained_on_once(tmp_path, capsys, monkeypatch):
    seen, draw = [], FirstBatch.draw
    monkeypatch.setattr(FirstBatch, "draw", lambda self, *given: seen.append(given[1]) or draw(self, *given))
    line = tiny(f"run.dir={tmp_path / 'run'}", "dataset.flip=true", "callbacks.preview=null", "callbacks.batch.n=4")
    line = [word for word in line if not word.startswith("callbacks.preview.")]
    for steps in 1, 2:
        done = command("train", *line, f"trainer.max_steps={steps}", "resume=auto", capsys=capsys)
        assert done.code == 0, done.err
    [batch] = seen
    with Image.open(done.folder / "samples" / "data.png") as picture:
        cells = np.asarray(picture).reshape(2, 58, 2, 58).transpose(0, 2, 1, 3)[..., 4:-1:7, 4:-1:7]
    np.testing.assert_array_equal(cells.reshape(4, 8, 8), batch.x[:4, 0])


def test_a_row_has_the_images_of_one_class_and_the_last_those_without():
    label = Label(classes=["cat", "dog"])
    mask = torch.tensor([False, True, False, False])
    condition = Condition.of(label=torch.tensor([1, 0, 0, 1])).without(mask, ["label"])
    assert rows(condition, {"label": label}) == {"cat": [2], "dog": [0, 3], "(none)": [1]}
    assert rows(condition, {}) == rows(Condition(4), {"label": label}) == {}


def test_several_conditions_are_written_side_by_side():
    vector = Vector(mean=[0.0], std=[1.0], low=[0.0], high=[1.0])
    condition = Condition.of(label=torch.tensor([1, 0]), vector=torch.tensor([[0.5], [0.25]]))
    found = rows(condition, {"label": Label(classes=["cat", "dog"]), "vector": vector})
    assert found == {"cat 0.25": [1], "dog 0.5": [0]}
