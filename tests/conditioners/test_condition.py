"""Condition: rows stay with their images, whatever is done to them."""

import pytest
import torch

from diffusion.conditioners.condition import PREVIOUS, Condition


def made(n=4):
    return Condition.of(label=torch.arange(n), vector=torch.arange(2.0 * n).reshape(n, 2))


def test_rows_are_those_of_the_images_asked_for():
    dropped = made().without(torch.tensor([True, False, False, False]), ["label"])
    for index in (torch.tensor([0, 3]), torch.tensor([True, False, False, True]), slice(0, 4, 3)):
        found = dropped.rows(index)
        assert len(found) == 2
        assert found.filled("label", -1).tolist() == [-1, 3]
        assert found.tensors["vector"].tolist() == [[0, 1], [6, 7]]
    assert len(Condition(4).rows(torch.tensor([True, False, False, True]))) == 2
    assert len(Condition(4).rows(slice(1, None))) == 3


def test_without_a_mask_all_rows_of_what_was_asked_for_are_absent():
    condition = made().also(**{PREVIOUS: torch.ones(4, 1, 2, 2)})
    assert condition.asked == ("label", "vector")
    none = condition.without()
    assert none.filled("label", -1).tolist() == [-1] * 4
    assert none.filled(PREVIOUS, -1).sum() == 16
    assert condition.without(names=[PREVIOUS]).filled(PREVIOUS, 0).sum() == 0
    assert condition.filled("label", -1).tolist() == [0, 1, 2, 3], "nothing is changed in place"


def test_rows_that_are_absent_stay_so_when_more_are_dropped():
    twice = made().without(torch.tensor([True, False, False, False])).without(torch.tensor([False, True, False, False]))
    assert twice.filled("label", -1).tolist() == [-1, -1, 2, 3]


def test_a_replaced_condition_is_present():
    again = made().without().also(label=torch.tensor([5, 6, 7, 8]))
    assert again.filled("label", -1).tolist() == [5, 6, 7, 8]
    assert again.filled("vector", -1).sum() == -8


def test_one_after_another_what_one_lacks_is_absent_in_its_rows():
    both = made(2).cat(Condition(1), Condition.of(label=torch.tensor([9])).without())
    assert len(both) == 4
    assert both.filled("label", -1).tolist() == [0, 1, -1, -1]
    assert both.filled("vector", -1).tolist() == [[0, 1], [2, 3], [-1, -1], [-1, -1]]
    assert both.rows(slice(2)).tensors["vector"].equal(made(2).tensors["vector"])


def test_a_tensor_of_another_batch_is_refused():
    with pytest.raises(ValueError, match="label has 3 rows, the condition has 4"):
        Condition(4).also(label=torch.arange(3))


def test_it_goes_to_a_device_as_a_whole():
    moved = made().without(torch.tensor([True, False, False, False])).to("meta")
    assert {tensor.device.type for each in (moved.tensors, moved.absent) for tensor in each.values()} == {"meta"}
