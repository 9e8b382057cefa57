"""The commands of the pages work: each page's blocks run on toy data, in order, in a folder of its own.

A ``bash`` block is run by bash, all of a page's in one shell, so that variables last; a ``python`` block as a file, then the
tests in it. A block with ``title="FILE"`` is that file. A block below ``<!-- not run by the tests: <reason> -->`` is left out.

The pages speak of Dataset 17 (here the toy data set), of the new data set 21 with one more organ, of the folder ``my_data``
and of the schedule ``abdomen_2-2.json``; all of them are there. ``command_server.py`` says what its commands do otherwise.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import SimpleITK as sitk
from toy import LABELS, ORGANS, make_dataset, make_raw, toy_volume, write_schedule

from nnunet_cil.cli.main import _parser
from nnunet_cil.shipped import trainers_folder

ROOT = Path(__file__).parents[2]
STUDY = "docs/how-to/run-a-study.md"
BEGIN_TRAINED = (
    "docs/how-to/teach-one-more-organ.md",
    "docs/how-to/score-and-read.md",
    "docs/how-to/deploy.md",
)
"""These begin where ``STUDY`` ends: the schedule is trained and scored."""

BLOCK = re.compile(
    r"^(?:.*(<!-- not run by the tests: \S.* -->)\n+)?"
    r'( *)```(bash|python|json)(?: title="([^"]+)")?\n'
    r"((?:.*\n)*?) *```$",
    re.M,
)

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="needs a checkout")


def blocks(page):
    """The blocks of a page that are run or written: (language, file or "", text)."""
    for reason, indent, language, title, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if not reason and (language != "json" or title):
            yield language, title, "\n".join(line.removeprefix(indent) for line in text.splitlines()) + "\n"


def all_pages():
    return [
        p.relative_to(ROOT).as_posix()
        for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
    ]


def pages():
    return sorted(page for page in all_pages() if any(language != "json" for language, *_ in blocks(page)))


def script(page, folder):
    """Writes the titled blocks, and returns the shell script of a page."""
    lines = ["set -euo pipefail", f"cd {folder}"]
    for number, (language, title, text) in enumerate(blocks(page)):
        file = folder / (title or f"block_{number}.{language}")
        file.parent.mkdir(parents=True, exist_ok=True)
        if language != "bash":
            file.write_text(text)
        lines += {"bash": [text], "python": [f"python {file.relative_to(folder)}"], "json": []}[language]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder that a page begins in, with all that the pages take for granted."""
    folder = tmp_path_factory.mktemp("world")
    make_dataset(folder / "nnunet", LABELS)
    make_raw(folder / "nnunet", "Dataset021_Cyst", {"background": 0, "cyst": 1})
    write_schedule(folder, [ORGANS[:2], ORGANS[2:]], name="abdomen_2-2")
    for part in ("images", "labels"):
        (folder / "my_data" / part).mkdir(parents=True)
    for case in range(3):
        for part, array in zip(("images", "labels"), toy_volume(case, organs=2), strict=True):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / "my_data" / part / f"case{case}.nii.gz"))
    names = '{"name": "MyOrgans", "labels": {"liver": 1, "spleen": 2}, "channels": ["MR"]}'
    (folder / "my_data" / "names.json").write_text(names)
    return folder


def run(page, folder, command_server):
    """Runs a page in a folder; returns what it said, after its exit status."""
    environment = {f"nnUNet_{part}": str(folder / "nnunet" / part) for part in ("raw", "preprocessed", "results")}
    done = subprocess.run(
        ["bash", "-c", script(page, folder)],
        env={
            **os.environ,
            **environment,
            "nnUNet_extTrainer": str(trainers_folder()),
            "PATH": f"{command_server}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def studied(world, command_server, tmp_path_factory):
    """The folder in which ``STUDY`` was run, and what it said."""
    folder = tmp_path_factory.mktemp("study") / "page"
    shutil.copytree(world, folder)
    return folder, run(STUDY, folder, command_server)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.parametrize("page", pages())
def test_the_blocks_of_a_page_run(page, world, command_server, tmp_path, request):
    if page == STUDY:
        _, (status, said) = request.getfixturevalue("studied")
    else:
        start = request.getfixturevalue("studied")[0] if page in BEGIN_TRAINED else world
        shutil.copytree(start, tmp_path / "page", symlinks=True)
        status, said = run(page, tmp_path / "page", command_server)
    assert status == 0, said


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_failing_command_fails_its_page(command_server, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "a.md").write_text("```bash\nnnunet_cil schedules nonsense\necho on\n```\n")
    status, said = run("a.md", tmp_path, command_server)
    assert status == 1
    assert "There is no schedule 'nonsense'" in said
    assert "on" not in said.splitlines()


def test_a_block_that_is_not_to_run_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    comment = "<!-- not run by the tests: x -->"
    (tmp_path / "a.md").write_text(f"{comment}\n```bash\nfalse\n```\n\n```bash\ntrue\n```\n")
    assert list(blocks("a.md")) == [("bash", "", "true\n")]


def test_a_reason_is_given_for_every_block_that_is_not_run():
    for page in all_pages():
        text = (ROOT / page).read_text(encoding="utf-8")
        marks = re.findall(r"^ *# not run.*|<!-- not run.*", text, re.M)
        assert [m for m in marks if not re.match(r"<!-- not run by the tests: \w.* -->", m)] == [], page


def called(page):
    """The calls of nnunet_cil in all blocks of bash of a page, those that are not run among them, as lists of words."""
    for *_, language, _, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        if language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|;|\|", re.sub(r"\$\(.*?\)", "X", line)):
                    words = shlex.split(part, comments=True)
                    yield from [words[words.index("nnunet_cil") + 1 :]] if "nnunet_cil" in words[:2] else []


@pytest.mark.parametrize("page", all_pages())
def test_every_command_of_a_page_is_one_that_the_parser_takes(page):
    for words in called(page):
        if words and not {"...", ">"} & set(words):
            _parser().parse_args(words)


def test_the_pages_call_the_commands():
    assert {words[0] for page in all_pages() for words in called(page)} >= {
        "run",
        "extend",
        "convert",
        "plan",
        "status",
    }
