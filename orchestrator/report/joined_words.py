"""The words of a table that joins several jobs."""

from __future__ import annotations

from orchestrator.report.model import Report


def where_from(report: Report) -> list[str]:
    """Of a table that joins jobs: where its columns come from, and which rows their jobs do not have."""
    jobs: dict[str, list[str]] = {}
    for source in report.joined:
        figure = f"{source.figure.title}{f' on {source.split}' if source.split else ''}" if source.figure.name else ""
        told = ", ".join(filter(None, (figure, source.where)))
        if source.job_id:
            column = f"{source.column} ({told})" if told else source.column
            jobs.setdefault(f"stage {source.stage} of job {source.job_id}", []).append(column)
        else:
            jobs.setdefault(f"not run: {source.remedy}", []).append(source.column)
    lines = [f"{', '.join(columns)}: {job}" for job, columns in jobs.items()]
    absent: dict[tuple[str, ...], list[str]] = {}
    for n, source in enumerate(report.joined):
        own = report.cells[n :: len(report.joined)]
        if rows := tuple(cell.row for cell in own if cell.state == "absent" and not cell.keys):
            absent.setdefault(rows, []).append(source.column)
    return lines + [f"{', '.join(names)}: no trial of {', '.join(rows)} by its spec" for rows, names in absent.items()]
