"""BTCV in its official layout."""

import json
import shutil

import numpy as np
import pytest
from conversions import cases, classes, converted, folds
from downloads import (
    label_map,
    read,
    write_btcv,
)

from nnunet_cil.datasets import btcv
from nnunet_cil.errors import CILError


def test_btcv(raw, source):
    folder, content, text = converted("btcv", write_btcv(source))
    assert folder.name == "Dataset040_BTCV"
    assert cases(folder) == ["btcv_0001", "btcv_0005", "btcv_0035"]
    assert classes(content) == btcv.CLASSES
    assert "3 of the 30 labelled cases" in text
    assert (folder / "imagesTr/btcv_0005_0000.nii.gz").resolve().name == "img0005.nii.gz"
    assert np.array_equal(read(folder / "labelsTr/btcv_0005.nii.gz"), label_map(*range(1, 14)))


def test_btcv_splits_of_the_field(raw, source, monkeypatch):
    write_btcv(source)
    folder, content, _ = converted("btcv", source, split="transunet")
    assert (cases(folder), cases(folder, "Ts")) == (["btcv_0005"], ["btcv_0001", "btcv_0035"])
    assert (content["numTraining"], content["test"]) == (1, ["btcv_0001", "btcv_0035"])
    shutil.rmtree(folder)
    folder, _, _ = converted("btcv", source, split="swin-unetr")
    expected = [{"train": ["btcv_0001", "btcv_0005"], "val": ["btcv_0035"]}]
    assert folds(folder) == expected
    handed_over = raw.parent / "preprocessed" / folder.name / "splits_final.json"
    assert json.loads(handed_over.read_text()) == expected
    handed_over.write_text("[]")
    with pytest.raises(CILError, match="holds another split"):
        converted("btcv", source, split="swin-unetr")
    with pytest.raises(CILError, match=r"was converted with another split. Remove .*splits_final.json"):
        converted("btcv", source)
    with pytest.raises(CILError, match=r"--split 'swinunetr' is unknown \(did you mean 'swin-unetr'\?\)"):
        converted("btcv", source, split="swinunetr")
    assert len(btcv.TRANSUNET_TEST) == 12
