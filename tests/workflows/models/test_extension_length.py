"""The default length of an extension, as a share of a training from scratch."""

import pytest

from nnunet_cil.workflows.models import extension_length


def test_without_a_share_the_length_is_nnunets_own_and_no_setting():
    assert extension_length.with_length({"initial_lr": 0.003}) == {"initial_lr": 0.003}
    assert extension_length.num_epochs({}) == 1000
    assert extension_length.length_note({}).startswith("Length: 1000 epochs, as many as a training from scratch has: ")


@pytest.mark.parametrize(("share", "epochs"), [(0.25, 250), (1 / 16, 62)])
def test_a_share_is_a_setting_of_the_training_that_is_told_with_its_reason(monkeypatch, share, epochs):
    monkeypatch.setattr(extension_length, "SHARE", share)
    monkeypatch.setattr(extension_length, "WHY", "longer ones gave no more")
    assert extension_length.with_length({"optimizer": "AdamW"}) == {"optimizer": "AdamW", "num_epochs": epochs}
    note = extension_length.length_note({"optimizer": "AdamW"})
    assert note.startswith(
        f"Length: {epochs} epochs, {share:.3g} times as many as a training from scratch has: longer ones gave"
    )
    assert note.endswith("--training num_epochs=N.")


def test_a_length_that_is_given_counts_and_needs_no_words(monkeypatch):
    monkeypatch.setattr(extension_length, "SHARE", 0.25)
    assert extension_length.with_length({"num_epochs": 40}) == {"num_epochs": 40}
    assert extension_length.num_epochs({"num_epochs": 40}) == 40
    assert extension_length.length_note({"num_epochs": 40}) == ""
