"""benchmarks/gpu_check.py: its parts on a CPU, its limits, and the page that it fills."""

import json
import sys

import fill_tables
import gpu_check
import gpu_parts
import gpu_report
import pytest
import torch

PART = """
import json, sys, time
given, file = json.loads(sys.argv[1]), sys.argv[2]
open(file, "w").write(json.dumps({"machine": {"name": "toy"}, "reached": given["part"]}))
if given["part"] == "losses": time.sleep(60)
if given["part"] == "cost": sys.exit("no room for " + given["kind"])
"""


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Runs gpu_check.py with parts that only sleep, fail, or end; returns what it wrote."""
    (tmp_path / "gpu_parts.py").write_text(PART)
    output = tmp_path / "found.json"

    def run(*arguments):
        command = ["gpu_check.py", "--device", "cpu", "--quick", "-o", str(output), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(gpu_check, "HERE", tmp_path)
        monkeypatch.setattr(gpu_check, "limit_of", lambda *_: 1)
        gpu_check.main()
        return json.loads(output.read_text())

    return run


def test_a_part_that_takes_too_long_is_killed_and_what_it_found_is_kept(check):
    part = check("--parts", "losses")["parts"]["losses"]
    assert part["status"] == "over its limit"
    assert part["found"]["reached"] == "losses"
    assert part["seconds"] < 20


def test_a_part_that_fails_is_told_with_its_last_words_and_the_others_run(check, capsys):
    with pytest.raises(SystemExit, match=r"Look at cost_3d_13 in .*found\.json"):
        check("--parts", "cost_3d_13", "resume", "training", "compile")
    told = capsys.readouterr().err
    assert "no room for 3d" in told
    assert "training: skipped after 0 s. No real data: give an nnU-Net raw data set folder with --data." in told
    assert "compile: skipped after 0 s. nnU-Net compiles on CUDA only." in told
    assert "resume: done" in told


def test_what_is_done_is_not_run_again_and_another_kind_of_check_is_refused(check, tmp_path, capsys):
    check("--parts", "resume")
    capsys.readouterr()
    content = check("--parts", "resume")
    assert capsys.readouterr().err == ""
    assert content["machine"] == {"name": "toy"}
    (tmp_path / "found.json").write_text(json.dumps({**content, "quick": False}))
    with pytest.raises(SystemExit, match="of another device, or of other sizes"):
        check("--parts", "resume")


def test_without_time_left_no_part_is_started(check):
    content = check("--minutes", "0.1", "--parts", "resume")
    assert content["parts"]["resume"]["status"] == "no time left"


def test_a_folder_that_is_no_raw_data_set_and_a_machine_without_a_gpu_are_refused(check, tmp_path):
    with pytest.raises(SystemExit, match=r"has no dataset\.json"):
        check("--data", str(tmp_path))
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="PyTorch finds no CUDA device"):
            check("--device", "cuda")


def test_a_trainer_that_does_not_fit_into_the_memory_is_skipped_and_said(tmp_path, monkeypatch):
    def measured(given, name, intervals, found):
        found.append({"seconds": [0.1]})
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu_parts, "measured", measured)
    notes = gpu_parts.Notes(tmp_path / "notes.json")
    notes(machine={"free_gib": 7.9}, too_large=[])
    found = gpu_parts.fitting({"device": "cpu"}, "nnUNetTrainerPGCD", (1, 4), notes)
    assert found == [{"seconds": [0.1]}]  # what was measured before stays
    told = json.loads((tmp_path / "notes.json").read_text())["too_large"]
    assert told == ["nnUNetTrainerPGCD does not fit into the free 8 GiB."]


def test_losses_agree_with_the_cpu_and_their_tables_fill_a_page(tmp_path, monkeypatch):
    notes = gpu_parts.Notes(tmp_path / "losses.json")
    gpu_parts.losses({"device": "cpu", "quick": True}, notes)
    assert not torch.are_deterministic_algorithms_enabled()
    rows = notes.found["losses"]
    assert {r["precision"] for r in rows} == {"float32", "float16"}
    assert all(r["ok"] for r in rows)
    assert max(r["gradient"] for r in rows) > 1e-5  # of float16
    assert notes.found["determinism"] == {"PGCD": True, "MiB": True, "warnings": []}

    pair = {
        "plain": {"seconds": [1.0, 2.0], "epoch_seconds": [8.0]},
        "own": {"seconds": [1.2, 2.4], "epoch_seconds": [10.0]},
    }
    entry = {"plans": "resenc", "old_classes": 13, "patch": [16] * 3, "batch": 2, "interval": 4}
    settings = [{**entry, "trainers": {"nnUNetTrainerPGCD": [pair]}}]
    of_cost = {"settings": settings, "plain": pair["plain"], "too_large": ["nnUNetTrainerMiB does not fit."]}
    ended = {"status": "done", "seconds": 3.0, "limit": 9}
    content = {"device": "cpu", "quick": True, "machine": {"name": "toy"}, "parts": {}}
    content["parts"] = {"losses": {**ended, "found": notes.found}, "cost_resenc_13": {**ended, "found": of_cost}}
    assert gpu_report.cost(content).splitlines()[-1] == (
        "| 3D residual encoder | 13 | PGCD | 4 | **1.20** | **1.25** |"
    )
    assert "does not fit" in gpu_report.parts(content)

    file, document = tmp_path / "gpu.json", tmp_path / "page.md"
    gpu_check.write(content, file)
    monkeypatch.setattr(gpu_report, "TITLES", {"losses": "Losses"})  # each command is a process of its own
    monkeypatch.setattr(sys, "argv", ["fill_tables.py", str(document), "--check"])
    document.write_text(gpu_report.page(content, file) + "\n")
    fill_tables.main()
    document.write_text(document.read_text().replace("| PGCD | 13 | float32 |", "| PGCD | 13 | float64 |"))
    with pytest.raises(SystemExit, match="is not what its command prints"):
        fill_tables.main()
