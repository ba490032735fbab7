"""The same planner inside report.html: in its own frame, started at the experiment."""

import pytest

from infalign.quantile.optimal import optimal_transform
from infalign.quantile.procedures import WorstOfN
from infalign.report import Act, Report, write_report


@pytest.mark.parametrize("width", [1280, 390])
def test_the_reports_planner_opens_and_computes(open_page, tmp_path, width):
    plan = {"procedure": "worst_of_n", "n": 3, "kl": 0.5, "transform": "optimal", "k": 0}
    path = write_report(Report("A report", (Act("An act", plan=plan),)), tmp_path)
    page = open_page(path=path, viewport={"width": width, "height": 844})
    page.locator("#planner summary").click()
    frame = page.frame_locator("iframe.planner")
    frame.locator('html[data-settled^="#"]').wait_for()
    shown = frame.locator("[data-name=limit]").get_attribute("data-value")
    assert float(shown) == pytest.approx(optimal_transform(WorstOfN(3), kl=0.5).win_rate, abs=1e-6)
    assert page.locator("html").evaluate("h => h.scrollWidth") == width
    assert frame.locator("html").evaluate("h => h.scrollWidth - h.clientWidth") <= 0
