"""FLARE22 in its official layout."""

from conversions import cases, classes, converted
from downloads import (
    write_flare22,
)

from nnunet_cil.datasets import flare22


def test_flare22(raw, source):
    folder, content, _ = converted("flare22", write_flare22(source))
    assert cases(folder) == ["FLARE22_Tr_0001", "FLARE22_Tr_0002"]
    assert classes(content) == flare22.CLASSES
