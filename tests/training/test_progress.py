"""Times of a training, as nnU-Net's logger keeps them."""

import math
import time
from types import SimpleNamespace

import pytest

from nnunet_cil.training.progress import around_epochs, fill_around_epochs, record_online_dice, training_seconds

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


def test_an_entry_for_every_epoch_changes_no_time():
    logged = {**EPOCHS, "seconds_around_epochs": [7.0]}
    logger = SimpleNamespace(local_logger=SimpleNamespace(my_fantastic_logging=logged))
    for epoch in range(2):
        fill_around_epochs(logger, epoch)
        assert len(logged["seconds_around_epochs"]) == epoch + 1
    assert training_seconds(logged) == 62


def test_a_class_without_an_online_dice_counts_in_no_mean():
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    local = LocalLogger()
    logger = SimpleNamespace(local_logger=local, log=local.log, get_value=local.get_value)
    for epoch, dice in enumerate([[0.5, math.nan, 0.25], [math.nan, math.nan, 0.75]], start=3):
        local.my_fantastic_logging["dice_per_class_or_region"] = [dice]
        record_online_dice(logger, [0, 1], epoch)
    assert local.my_fantastic_logging["old_class_agreement"] == pytest.approx(
        [math.nan] * 3 + [0.5, math.nan], nan_ok=True
    )
    assert local.my_fantastic_logging["new_class_dice"] == pytest.approx([math.nan] * 3 + [0.25, 0.75], nan_ok=True)
