"""The report as LaTeX tables."""

from __future__ import annotations

from orchestrator.report.model import Report
from orchestrator.report.wording import grid, notes, title

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "<": r"\textless{}",
    ">": r"\textgreater{}", "\n": " ",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(report: Report) -> str:
    """A table for booktabs; the best number of each column in bold."""
    header, body = grid(report)
    best = _best(report)
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_tex('. '.join(part for part in (report.caption, title(report)) if part))}.}}",
        rf"  \label{{tab:{report.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"    \toprule",
        "    " + " & ".join(_tex(text) for text in header) + r" \\",
        r"    \midrule",
    ]
    for line in body:
        row = line.texts[0]
        words = [_tex(text) for text in line.texts]
        if line.kind == "ours":
            values = [report.at[row, column.name].value for column in report.columns]
            values += [mean.value for mean in report.means if mean.row == row]
            for i, value in enumerate(values, 1):
                if (row, i) in best:
                    words[i] = rf"\textbf{{{words[i]}}}"
                elif value is None:
                    words[i] = rf"\textit{{{words[i]}}}"
        else:
            words = [rf"\quad {words[0]}", *words[1:]]
        lines.append("    " + " & ".join(words) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    lines += [rf"  \\ {{\footnotesize {_tex(note)}}}" for note in notes(report)]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _best(report: Report) -> set[tuple[str, int]]:
    """(row, column number) of the best value of each column of the table, averages included."""
    found = set()
    names = list(dict.fromkeys(mean.name for mean in report.means))
    columns: list[tuple[str, list[tuple[str, float]]]] = [
        (column.mode, [(c.row, c.value) for c in report.cells if c.column == column.name and c.value is not None])
        for column in report.columns
    ]
    mode = report.columns[0].mode if report.columns else "max"
    columns += [(mode, [(m.row, m.value) for m in report.means if m.name == n and m.value is not None]) for n in names]
    for i, (order, values) in enumerate(columns, 1):
        if len(values) > 1:
            best = (max if order == "max" else min)(value for _, value in values)
            found |= {(row, i) for row, value in values if value == best}
    return found
