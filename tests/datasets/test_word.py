"""WORD in its official layout."""

import shutil

from conversions import cases, classes, converted, folds
from downloads import (
    write_word,
)

from nnunet_cil.datasets import word


def test_word(raw, source):
    folder, content, text = converted("word", write_word(source))
    assert cases(folder) == ["word_0001", "word_0002", "word_0003"]
    assert cases(folder, "Ts") == ["word_0007"]
    assert folds(folder) == [{"train": ["word_0002", "word_0003"], "val": ["word_0001"]}]
    assert classes(content) == word.CLASSES
    assert "imagesVal: 1 of the 20 labelled cases" in text


def test_word_without_public_test_labels(raw, source):
    shutil.rmtree(write_word(source) / "WORD-V0.1.0/labelsTs")
    folder, _, text = converted("word", source)
    assert cases(folder, "Ts") == []
    assert "word_0007" not in text
