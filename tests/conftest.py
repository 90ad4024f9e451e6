"""Shapes and types of every public signature are checked while the tests run; property tests repeat exactly."""

import csv

import hypothesis
import jaxtyping
import pytest
import torch

torch.set_num_threads(1)
jaxtyping.install_import_hook(
    ["ica.objectives", "ica.transformer", "ica.intervals", "ica.theory", "ica.synthetic", "ica.llm"],
    "beartype.beartype",
)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def process_as_it_began():
    """What a test sets for its whole process holds for it alone: the limit of CSV fields."""
    limit = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(limit)


@pytest.fixture
def as_users_call():
    """The signatures unchecked, as outside the tests, so that refusals are our own and not the checker's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
