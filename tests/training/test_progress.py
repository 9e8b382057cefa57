"""Times of a training, as nnU-Net's logger keeps them."""

import math
import time
from types import SimpleNamespace

import pytest

from nnunet_cil.training.progress import around_epochs, training_seconds

EPOCHS = {"epoch_start_timestamps": [100.0, 4000.0], "epoch_end_timestamps": [130.0, 4025.0]}
"""Interrupted between its two epochs, for an hour."""


def test_the_time_of_a_training_is_of_its_epochs_without_interruptions_and_of_what_comes_around():
    assert training_seconds(EPOCHS) == 55
    assert training_seconds({**EPOCHS, "seconds_around_epochs": [7.0, 3.0]}) == 65


def test_without_a_timed_epoch_the_time_is_unknown():
    assert math.isnan(training_seconds({}))
    assert math.isnan(training_seconds({"train_losses": [1.0], "seconds_around_epochs": [7.0]}))


def test_what_comes_before_and_after_the_epochs_is_timed(monkeypatch):
    clock = iter((10.0, 12.5, 50.0, 50.25))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    logger = SimpleNamespace(local_logger=SimpleNamespace(my_fantastic_logging=dict(EPOCHS)))
    for _ in range(2):
        with around_epochs(logger):
            pass
    assert training_seconds(logger.local_logger.my_fantastic_logging) == pytest.approx(55 + 2.75)
