"""The figures and the report of an evaluation."""

import json
import re

from toy import DATASET, LABELS
from toy_models import PGCD, run

from nnunet_cil.evaluation.scores import score_table
from nnunet_cil.workflows.evaluate.cases import Case
from nnunet_cil.workflows.evaluate.pictures import write_overlays
from nnunet_cil.workflows.evaluate.predict import Prediction
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment


def test_the_report_is_one_file_with_everything_in_it(trained, with_pictures):
    _, schedule, _ = trained
    found = run(schedule)
    page = (found.folder / "report.html").read_text()
    names = {f.name for f in (found.folder / "figures").iterdir()}
    charts = ("curves", "matrix", "classes", "cases", "forgetting", "training", "case_worst", "case_median")
    assert names == {f"{chart}.{ending}" for chart in charts for ending in ("png", "svg")}
    assert page.count("<img ") == page.count("<source ") == page.count("base64,") / 2 == len(charts)
    assert "All classes have a mean Dice of 0.833 after the last step with PGCD." in page
    assert "Old classes end at 0.667, 0.333 below their best (kidney has lost most, 0.333)." in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    digest = json.loads((found.folder / "results.json").read_text())["checkpoints_sha256"][f"{PGCD} step 1 fold 0"]
    assert digest in page
    assert f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step1 -device cpu" in page
    assert "The worst case of PGCD: t" in page
    assert r"PGCD & 0.667 & 1.000 & 0.667 & 1.000 & 0.833 \\" in (found.folder / "tables.tex").read_text()


def test_a_case_whose_image_is_gone_is_not_shown(tmp_path, trained):
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=trained[1], trainers=(PGCD,)
    )
    model = PlannedExperiment.read(experiment).model_folds()[-1]
    table = score_table([{"trainer": PGCD, "step": 1, "fold": 0, "case": "t0", "class": "kidney", "dice": 0.5}])
    case = Case(
        name="t0",
        reference=tmp_path / "t0.nii.gz",
        image=tmp_path / "gone.nii.gz",
        labels=LABELS,
        classes=["kidney"],
    )
    assert write_overlays(tmp_path, {PGCD: (model, [Prediction(case, tmp_path / "t0.nii.gz")])}, table) == []
