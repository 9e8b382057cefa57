"""The comparison at the end of an extension, where there is nothing to compare."""

import json
import logging
from types import SimpleNamespace

import pytest

from nnunet_cil.evaluation.comparison_summary import NothingToCompare
from nnunet_cil.workflows.models import compare_extension


@pytest.mark.parametrize("labels", [{"liver": 1}, {"organs": [1, 2], "liver": 2}], ids=["labels", "regions"])
def test_images_without_the_old_organs_leave_a_note_and_the_export_goes_on(tmp_path, monkeypatch, caplog, labels):
    def nothing(*_, **__):
        raise NothingToCompare("Neither model finds any of liver in any case.")

    labels, order = {"background": 0, **labels}, {"regions_class_order": [1, 2]} if "organs" in labels else {}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".mha", **order}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    old = SimpleNamespace(dataset_json=content, folder=tmp_path / "old")
    new = SimpleNamespace(fold=0, model=SimpleNamespace(folder=tmp_path, reader="SimpleITKIO"))
    for name in ("read_side", "_side_of", "_fold_cases"):
        monkeypatch.setattr(compare_extension, name, lambda *_: [])
    monkeypatch.setattr(compare_extension, "_compared_names", lambda _: {"0": {}})
    monkeypatch.setattr(compare_extension, "compare_cases", nothing)
    with caplog.at_level(logging.INFO):
        assert (
            compare_extension.compare_extension(old, [new], tmp_path / "out", device="cpu", command="a command") is None
        )
    assert "Note: Neither model finds any of liver in any case." in caplog.text
    assert f"nnunet_cil compare {tmp_path / 'old'} {tmp_path} -i IMAGES -o OUT" in caplog.text
