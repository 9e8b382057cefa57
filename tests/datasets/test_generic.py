"""The names of the user's own data set."""

import pytest
from conversions import convert_mine

from nnunet_cil.errors import CILError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ('{"name": "A"}', "has no 'labels'"),
        ('{"name": "A", "labels": {"liver": 0}}', "whole number above 0"),
        ('{"name": "A", "labels": {"liver": 1, "spleen": 1}}', "of its own"),
        ('{"name": "A", "labels": {"liver": 1}, "channels": "CT"}', "must be a list of names"),
        ('{"name": "A/B", "labels": {"liver": 1}}', "'name' is 'A/B'"),
    ],
)
def test_bad_names_are_refused(mine, raw, content, message):
    (mine / "names.json").write_text(content)
    with pytest.raises(CILError, match=message):
        convert_mine(mine)
