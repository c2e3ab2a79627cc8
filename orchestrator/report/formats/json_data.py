"""The report as JSON."""

from __future__ import annotations

import json

from orchestrator.report.json_values import to_json
from orchestrator.report.model import Report


def json_text(report: Report) -> str:
    """Everything the report holds, as the text of a JSON file."""
    return json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"
