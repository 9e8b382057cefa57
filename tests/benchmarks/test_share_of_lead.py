"""benchmarks/share_of_lead.py: what the page of PGCD says of its lead is what the stored results say."""

from pathlib import Path

import pytest
import share_of_lead
from scores import RESULTS
from study_tables import schedule_file

from nnunet_cil.schedule import load_schedule

METHODS = share_of_lead.WHOLE, share_of_lead.CHANGED, share_of_lead.BASELINE
PAGE = Path(share_of_lead.__file__).parents[1] / "docs/explanation/pgcd.md"


def stored_leads(step):
    schedule = load_schedule(schedule_file("openkbp_2-2-1_cpu"))
    files = sorted(RESULTS.glob("openkbp_2-2-1_cpu*.csv.gz"))
    return share_of_lead.leads(schedule, files, step, "all", METHODS, "test")


@pytest.mark.parametrize(("step", "fraction", "words"), [(1, 2 / 3, "two thirds"), (2, 3 / 4, "three quarters")])
def test_the_share_in_the_page_is_that_of_the_stored_results(step, fraction, words):
    found = stored_leads(step)
    assert len(found) == 3
    assert share_of_lead.share(found) == pytest.approx(fraction, abs=0.02)
    assert f"{words} after step {step}" in " ".join(PAGE.read_text(encoding="utf-8").split())


def test_the_share_is_a_ratio_of_means():
    assert share_of_lead.share([("a", 0.02, 0.01), ("b", 0.04, 0.005)]) == pytest.approx(0.25)
