"""The names of the user's own data set."""

import pytest
from conversions import convert_mine

from nnunet_cil.errors import CILError


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "must hold a JSON object in braces. It should look like"),
        ('{"name": "A"}', "lacks 'labels'"),
        ('{"name": "A", "labels": {}}', "names no labels"),
        ('{"name": "A", "labels": ["liver"]}', "for 'labels', but it must be an object"),
        ('{"name": "A", "labels": {"background": 0}}', "names no labels"),
        ('{"name": "A", "labels": {"background": 4, "liver": 1}}', "'background' has another number than 0"),
        ('{"name": "A", "labels": {"liver": "1"}}', "has '1' for 'labels.liver', but it must be a whole number"),
        ('{"name": "A", "labels": {"liver": true}}', "has true for 'labels.liver'"),
        ('{"name": "A", "labels": {"liver": 1.0}}', "has 1.0 for 'labels.liver'"),
        ('{"name": "A", "labels": {"liver": null}}', "has null for 'labels.liver'"),
        ('{"name": "A", "labels": {"liver": [1]}}', r"has \[1\] for 'labels.liver'"),
        ('{"name": "A", "labels": {"liver": 100000000000000000000}}', "up to 65535"),
        ('{"name": "A", "labels": {"liver": -1}}', "whole number above 0"),
        ('{"name": "A", "labels": {"": 1}}', "'' cannot be the name of a class"),
        ('{"name": "A", "labels": {"a\\nb": 1}}', "cannot be the name of a class"),
        ('{"name": "A", "labels": {"liver": 1, "ignore": 2}}', "'ignore' cannot be the name of a class"),
        ('{"name": "A", "labels": {"liver": 1, "liver": 2}}', "names 'liver' twice"),
        ('{"name": "A", "labels": {"liver": 1}, "channels": []}', "names no channels"),
        ('{"name": "A", "labels": {"liver": 1}, "channels": [1]}', r"has 1 for 'channels\[0\]'"),
        ('{"name": "A", "labels": {"liver": 1}, "channels": [" "]}', "' ' cannot be the name"),
        ('{"name": "A", "labels": {"liver": 1}, "licence": null}', "has null for 'licence'"),
        ('{"name": null, "labels": {"liver": 1}}', "has null for 'name'"),
        ('{"name": "A", "labels": {"liver": 0}}', "whole number above 0"),
        ('{"name": "A", "labels": {"liver": 1, "spleen": 1}}', "of its own"),
        ('{"name": "A", "labels": {"liver": 1}, "channels": "CT"}', "has 'CT' for 'channels', but it must be a list"),
        ('{"name": "A/B", "labels": {"liver": 1}}', "'name' is 'A/B'"),
    ],
)
def test_bad_names_are_refused(mine, raw, content, message):
    (mine / "names.json").write_text(content)
    with pytest.raises(CILError, match=message):
        convert_mine(mine)
