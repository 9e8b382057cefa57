"""Checks what is refused when a data set differs from the plans that it takes over."""

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.plan.compatibility import Note, Severity, compare_channels
from nnunet_cil.workflows.plan.transfer import refuse_blocking

SENTENCES = {"untrainable": "A does not fit B", "doubt": "A does not look like B", "option": "--force"}


def test_information_is_never_refused():
    refuse_blocking([Note("size: fine")], force=False, **SENTENCES)


def test_blocking_notes_are_refused_together_unless_forced():
    notes = [Note("spacing: far off", Severity.BLOCKING), Note("size: fine"), Note("reader: other", Severity.BLOCKING)]
    with pytest.raises(CILError, match=r"A does not look like B: spacing: far off; reader: other\. .* with --force"):
        refuse_blocking(notes, force=False, **SENTENCES)
    refuse_blocking(notes, force=True, **SENTENCES)


@pytest.mark.parametrize("force", [False, True])
def test_what_cannot_be_trained_is_refused_even_if_forced(force):
    notes = [Note("reader: other", Severity.BLOCKING), compare_channels({"0": "MR"}, {"0": "MR", "1": "T2"})]
    with pytest.raises(
        CILError, match=r"A does not fit B: channels: the model takes 1 \(MR\), the data set has 2 .MR, T2"
    ):
        refuse_blocking(notes, force=force, **SENTENCES)


def test_the_severity_decides_and_not_the_text():
    note = Note("channels: the model takes whatever it gets", Severity.BLOCKING)
    refuse_blocking([note], force=True, **SENTENCES)
    with pytest.raises(CILError, match="A does not fit B: anything"):
        refuse_blocking([Note("anything", Severity.UNTRAINABLE)], force=True, **SENTENCES)
