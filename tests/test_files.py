"""JSON files of users: what is refused, in one sentence that names the file; files that are there whole or not at all."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from test_owners import ended_process

from nnunet_cil.errors import CILError
from nnunet_cil.files import (
    MAX_JSON_DEPTH,
    moved_into_place,
    parse_json,
    read_json,
    read_json_list,
    temporary_folder,
    write_text,
)
from nnunet_cil.owners import current_owner

REMEDY = "Write it again."


def refused(file: Path) -> str:
    """Returns the sentence with which a file is refused, as an object and as a list."""
    with pytest.raises(CILError) as error:
        read_json(file, REMEDY)
    with pytest.raises(CILError):
        read_json_list(file, REMEDY)
    text = str(error.value)
    assert text.startswith(str(file))
    assert text.endswith(".")
    assert len(text) < 500
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n\t", "it is empty"),
        (b"{", "line 1, column 2"),
        (b'{"labels": {"liver": 1,}}', "line 1, column"),
        (b'{"a": 1}\n{"b": 2}', "extra data, line 2, column 1"),
        (b"{'a': 1}", "double quotes"),
        (b'{"a": 1 // a remark\n}', "line 1"),
        (b'{"a": "b\nc"}', "invalid control character"),
        (b'{"a": TRUE}', "expecting value"),
        (b'{"a": .5}', "expecting value"),
        (b'{"a": 01}', "line 1, column 8"),
        (b'{"a": 0x1F}', "line 1"),
        (b'{"liver": 1, "liver": 2}', "names 'liver' twice"),
        (b'[{"b": {"": 1, "": 1}}]', "names '' twice"),
        (b'{"steps": [], "name": "x", "steps": []}', "names 'steps' twice"),
        (b'{"m\\u0069lz": 1, "milz": 2}', "names 'milz' twice"),
        (b'{"' + b"k" * 5000 + b'": 1, "' + b"k" * 5000 + b'": 2}', "kkk... twice"),
        (b'{"M\xfcller": 1}', "byte 3 is not UTF-8"),
        ('{"Müller": 1}'.encode("utf-16"), "byte 0 is not UTF-8"),
        (b"\x1f\x8b\x08\x00\x00", "not UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "byte order mark"),
        (b'{"a": "\\ud800"}', "half of a character"),
        (b'{"\\uDFFF": 1}', "half of a character"),
        (b'{"a": ' + b"9" * 301 + b"}", "a number has 301 digits"),
        (b'{"a": -' + b"9" * 5000 + b"}", "a number has 5001 digits"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than"),
        (b'{"a": ' * 800 + b"1" + b"}" * 800, "nested more than"),
        (b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1), "nested more than"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_strict_json_is_refused(tmp_path, content, reason):
    file = tmp_path / "mine.json"
    file.write_bytes(content)
    text = refused(file)
    assert "is not valid JSON" in text
    assert reason in text
    assert "Correct it there, or restore the file." in text


@pytest.mark.parametrize(
    ("content", "kind"),
    [("null", "null"), ("true", "true"), ("[]", "a list"), ('"x"', "a text"), ("7", "a number"), ("NaN", "a number")],
)
def test_what_is_no_object_is_refused(tmp_path, content, kind):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(CILError, match=f"holds {kind}, but must hold a JSON object in braces. {REMEDY}"):
        read_json(file, REMEDY)


@pytest.mark.parametrize(
    ("content", "kind"), [("null", "null"), ("{}", "an object"), ('"a, b"', "a text"), ("-1", "a num")]
)
def test_what_is_no_list_is_refused(tmp_path, content, kind):
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(CILError, match=f"holds {kind}.*, but must hold a JSON list in brackets. {REMEDY}"):
        read_json_list(file, REMEDY)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("{}")
    (tmp_path / "broken_link.json").symlink_to(tmp_path / "gone.json")
    (tmp_path / "circle.json").symlink_to(tmp_path / "circle.json")
    assert "is a folder, but must be a JSON file" in refused(tmp_path / "folder.json")
    assert "is missing. Write it again." in refused(tmp_path / "none.json")
    assert "is missing. Write it again." in refused(tmp_path / "broken_link.json")
    assert "is missing. Write it again." in refused(tmp_path / "file" / "below.json")
    assert "cannot be read (" in refused(tmp_path / "circle.json")
    assert "cannot be read (" in refused(tmp_path / f"{'n' * 300}.json")[-200:]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text("{}")
    file.chmod(0)
    assert "cannot be read (Permission denied). Correct its permissions" in refused(file)


def test_a_file_that_the_system_refuses_is_one_sentence(tmp_path, monkeypatch):
    file = tmp_path / "mine.json"
    file.touch()

    def denied(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "cannot be read (Permission denied). Correct its permissions" in refused(file)


@pytest.mark.parametrize(
    "content",
    [
        {"labels": {"Leber ö": 1, "肝": 2, "😀": 3}, "x": [1.5, -2, 1e300, True, None]},
        {"number": int("9" * 300)},
        json.loads('{"a": ' * (MAX_JSON_DEPTH - 1) + "{}" + "}" * (MAX_JSON_DEPTH - 1)),
    ],
)
def test_valid_json_is_read_as_it_is(tmp_path, content):
    file = tmp_path / "mine.json"
    for ensure_ascii in (True, False):
        file.write_text(json.dumps(content, ensure_ascii=ensure_ascii), encoding="utf-8")
        assert read_json(file, REMEDY) == content


def test_scores_that_are_not_defined_are_read():
    assert math.isnan(parse_json('{"Dice": NaN}')["Dice"])


def test_a_failure_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path):
    file = tmp_path / "scores.nii.gz"
    file.write_text("before")

    def fail():
        with moved_into_place(file) as temporary:
            assert temporary.name.endswith("_scores.nii.gz")
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [f.name for f in tmp_path.iterdir()] == ["scores.nii.gz"]
    assert file.read_text() == "before"


def test_what_a_killed_process_leaves_is_removed_and_what_another_one_writes_is_not(tmp_path):
    gone, own = ended_process().token, current_owner()
    elsewhere = replace(own, host="0" * 8).token
    kept = {f".{elsewhere}_a.json", f".{own.token}_b.json", ".hidden", ".a-b-c-d_e"}
    for name in [*kept, f".{gone}_c.json"]:
        (tmp_path / name).write_text("")
    (tmp_path / f".{gone}_unpacked" / "deep").mkdir(parents=True)
    (tmp_path / f".{gone}_link").symlink_to(tmp_path)
    with moved_into_place(tmp_path / "d.json") as temporary:
        temporary.write_text("{}")
    assert {f.name for f in tmp_path.iterdir()} == kept | {"d.json"}


def test_text_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    write_text(tmp_path / "card.md", "whole ä")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "card.md", "half \ud800")
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == "whole ä"
    assert [file.name for file in tmp_path.iterdir()] == ["card.md"]


def test_a_temporary_folder_is_removed_in_the_end_also_after_a_failure(tmp_path):
    def fail():
        with temporary_folder(tmp_path / "new", "unpacked") as folder:
            (folder / "a").mkdir()
            raise ValueError("so")

    with pytest.raises(ValueError, match="so"):
        fail()
    assert list((tmp_path / "new").iterdir()) == []
