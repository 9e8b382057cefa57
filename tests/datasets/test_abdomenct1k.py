"""AbdomenCT-1K in its official layout."""

from conversions import cases, classes, converted
from downloads import (
    write_abdomenct1k,
)


def test_abdomenct1k(raw, source):
    folder, content, text = converted("abdomenct1k", write_abdomenct1k(source))
    assert cases(folder) == ["Case_00001", "Case_00401"]
    assert classes(content) == ("liver", "kidney", "spleen", "pancreas")
    assert "1 images have no mask and are left out" in text
