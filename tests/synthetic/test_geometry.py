"""The plane of a prompt: its loss against the minimiser's angle, the drawn angles, the picture."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from ica.synthetic.analysis import geometry
from ica.synthetic.task import floor


def test_the_loss_of_many_responses_is_least_where_the_minimiser_points():
    turn = torch.linspace(-math.pi, math.pi, 3601, dtype=torch.float64)
    loss, _ = geometry.population_loss(turn)
    limit = floor.population_angle(geometry.RIGHT, geometry.EQUAL).item()
    assert turn[loss.argmin()].item() == pytest.approx(limit, abs=2e-3)


@pytest.mark.parametrize("d", [0, 5])
def test_many_responses_end_at_their_limit(d):
    angles, ends = geometry.draw_angles(d, 20, 400, torch.Generator().manual_seed(0))
    assert angles.shape == (20, 400) and ((angles >= 0) & (angles <= math.pi)).all()
    errors = (1 - angle.cos() for angle in (floor.minimiser_angle(angles), ends))
    assert torch.stack([*errors]).diff(dim=0).abs().max() < 0.05


def test_the_picture_shows_the_minimiser_at_right_angles_to_the_mean():
    fig, ax = plt.subplots()
    drawn = geometry.prompt_plane(ax).set_index("label")[["along", "across"]]
    plt.close(fig)
    assert np.dot(drawn.loc["exact minimiser"], drawn.loc["weighted mean angle"]) == pytest.approx(0)
    assert drawn.loc["exact minimiser", "across"] < 0 < drawn.loc["weighted mean angle", "across"]
