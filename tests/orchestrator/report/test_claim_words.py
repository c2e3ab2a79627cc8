"""Claims in every form of the report, as a data frame, and in the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from good_spec import GOOD
from recorded_study import Plot, Study

from orchestrator import api
from orchestrator.cli.cost_table import lines
from orchestrator.report import claim_words
from orchestrator.report.build import build
from orchestrator.report.claims import reads
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.formatting import WIDTH
from orchestrator.report.model import Report
from orchestrator.settings import settings
from orchestrator.spec.job import JobSpec, Reference, ReportSpec
from orchestrator.store.store import Store, open_store

SUP, RAND = {"row": "SUP", "column": "digits"}, {"row": "RAND", "column": "digits"}
CLAIMS: tuple[dict[str, Any], ...] = (
    {"name": "ahead", "text": "SUP is ahead <b>&</b> 100 %.", "left": SUP, "right": RAND, "relation": "above",
     "sensitivity": ["loss"], "anchor": "RAND"},
    {"name": "near", "left": SUP, "right": RAND, "relation": "within", "margin": 1},
    {"name": "paper", "left": SUP, "right": {**SUP, "published": True}, "relation": "above"},
    {"name": "grid", "left": {**SUP, "stage": "grid"}, "right": 90, "relation": "below"},
)  # fmt: skip
VALUES = {"digits/SUP": (0.95, 0.96, 0.97), "digits/RAND": (0.90, 0.90, 0.92)}


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Store, Report]]:
    folder = tmp_path_factory.mktemp("claimed")
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    plot = Plot(
        claims=CLAIMS, data_sets=("digits",), lrs=(2.64e-4, 1.18e-3), decays=(0.75, 0.95), final_values=VALUES,
        reference={"SUP": {"digits": 97.0}},
    )  # fmt: skip
    study = Study(store, plot)
    store.claims.submit(study.job_id, reads(store, study.job_id))
    yield folder, store, build(store, study.run(), full=True)
    store.close()


def test_a_row_for_each_claim(claimed: tuple[Path, Store, Report]) -> None:
    _, _, report = claimed
    assert claim_words.rows(report) == [
        ["ahead", "96.0", "90.7", "+5.3", "[+3.9, +6.8]", "3", "0.012", "held", "written before"],
        ["near", "96.0", "90.7", "+5.3", "[+3.9, +6.8]", "3", "0.012", "contradicted", "written before"],
        ["paper", "96.0", "97.0", "−1.0", "–", "3", "–", "no verdict (one run there)", "written before"],
        ["grid", "–", "90.0", "–", "–", "0", "–", "not judged", "written before"],
    ]
    assert claim_words.title(report) == (
        "Difference: left less right; levels by Holm over 3 claims; the interval is not adjusted"
    )


def test_statements(claimed: tuple[Path, Store, Report]) -> None:
    ahead, near, paper, grid = claimed[2].claims
    assert claim_words.statement(ahead) == "SUP on digits, top-1 accuracy, above RAND on digits, top-1 accuracy"
    assert claim_words.statement(near).endswith("within 1 points of RAND on digits, top-1 accuracy")
    assert claim_words.statement(paper).endswith("above SUP on digits, published")
    assert claim_words.statement(grid) == "SUP on digits, top-1 accuracy, stage grid, below 90"
    assert claim_words.beside(grid) == ["not judged: 4 settings, of which stage grid has not chosen one"]
    assert claim_words.beside(ahead)[1] == "anchor: RAND on digits, top-1 accuracy: 90.7"


@pytest.mark.parametrize(
    ("p", "text"), [(None, "–"), (0.0, "<0.001"), (0.00099, "<0.001"), (0.0114, "0.011"), (1.0, "1.000")]
)
def test_p_values(p: float | None, text: str) -> None:
    assert claim_words.p_text(p) == text


@pytest.mark.parametrize("form", ["text", "md", "tex", "html"])
def test_every_form_has_the_claims(claimed: tuple[Path, Store, Report], form: str) -> None:
    text = FORMATS[form].render(claimed[2], Links())
    assert ("<b>&</b>" in text) == (form == "text")
    for words in ("contradicted", "no verdict", "written before", "SUP is ahead", "4 settings", "by Holm over 3"):
        assert words in text, words


def test_the_terminal_keeps_its_width(claimed: tuple[Path, Store, Report]) -> None:
    text = FORMATS["text"].render(claimed[2], Links())
    part = text[text.index("Claims.") : text.index("Chosen on")]
    assert max(map(len, part.splitlines())) <= WIDTH


def test_json_has_everything_and_the_page_marks_verdicts(claimed: tuple[Path, Store, Report]) -> None:
    data = json.loads(FORMATS["json"].render(claimed[2], Links()))
    first = data["claims"][0]
    assert (first["differences"], first["verdict"], first["reads"]) == ([5.0, 6.0, 5.0], "held", 6)
    assert first["sensitivity"][0]["figure"]["name"] == "loss"
    page = FORMATS["html"].render(claimed[2], Links())
    assert re.findall(r'class="verdict ([a-z-]+)"', page) == ["held", "contradicted", "no-verdict", "not-judged"]


def test_a_report_without_claims_has_no_section(whole: Report) -> None:
    for form in ("text", "md", "tex", "html"):
        assert "Claims" not in FORMATS[form].render(whole, Links()), form


def test_claims_as_a_frame(claimed: tuple[Path, Store, Report]) -> None:
    folder, _, report = claimed
    frame = api.claims(report.job_id, settings(folder, database_url=f"sqlite:///{folder / 'store.db'}"))
    assert list(frame["verdict"]) == ["held", "contradicted", "no verdict", "not judged"]
    assert frame.loc[0, ["difference", "low", "high", "adjusted_p", "n"]].tolist() == pytest.approx(
        [5.3333, 3.8991, 6.7676, 0.01165, 3], abs=1e-4
    )
    assert list(frame["ended_before"]) == [0, 0, 0, 0]


def test_the_plan_lists_claims(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        GOOD.replace("profiles:\n", "claims: [{name: ahead, text: SUP is ahead., left: {row: SUP, column: digits}, "
                                    "right: 90, relation: above}]\nprofiles:\n", 1)
    )  # fmt: skip
    job: JobSpec = api.load(tmp_path / "spec.yaml")
    where = settings(tmp_path, database_url=f"sqlite:///{tmp_path / 'store.db'}", data_root=tmp_path)
    text = lines(job, api.plan(job, where, cpus=2, gpus=0))
    assert text.endswith("Claims that the report will judge\n  ahead: SUP is ahead.")
    assert "Claims" not in lines(job.model_copy(update={"claims": []}), api.plan(job, where, cpus=2, gpus=0))


def test_the_plan_lists_published_values(tmp_path: Path) -> None:
    reference = Reference.model_validate({
        "source": "Table 6",
        "values": {
            "MIM": {"upernet": 51.0, "lr": 1e-05},
            "SUP": {"upernet": 50.9, "coco": {"ap_box": 51.9, "ap_mask": 45.7}},
        },
        "rows": [{"name": "HRFormer", "source": "Yuan et al. 2021", "values": {"coco": 77}}],
    })  # fmt: skip
    (tmp_path / "spec.yaml").write_text(GOOD)
    job: JobSpec = api.load(tmp_path / "spec.yaml")
    where = settings(tmp_path, database_url=f"sqlite:///{tmp_path / 'store.db'}", data_root=tmp_path)
    cost = api.plan(job, where, cpus=2, gpus=0)
    report = job.report.model_copy(update={"reference": reference})
    assert lines(job.model_copy(update={"report": report}), cost).endswith(
        "Published values that the report will set beside ours: Table 6\n"
        "  MIM: upernet 51.0, lr 1e-05\n"
        "  SUP: upernet 50.9, coco ap_box 51.9; ap_mask 45.7\n"
        "  HRFormer (Yuan et al. 2021): coco 77.0"
    )
    assert "Published" not in lines(job.model_copy(update={"report": ReportSpec()}), cost)


def test_hours_of_a_plan_are_no_powers_of_ten(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(GOOD)
    where = settings(tmp_path, database_url=f"sqlite:///{tmp_path / 'store.db'}", data_root=tmp_path)
    job: JobSpec = api.load(tmp_path / "spec.yaml")
    cost = replace(api.plan(job, where, cpus=2, gpus=0), gpu_hours=1144.4)
    cost.stages[0] = replace(cost.stages[0], gpu_hours=1144.4)
    text = lines(job, cost)
    assert "GPU-hours left" in text
    assert len(re.findall(r" 1,144\b", text)) == 2
