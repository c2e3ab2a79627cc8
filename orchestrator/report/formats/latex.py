"""The report as a LaTeX table."""

from __future__ import annotations

import itertools

from orchestrator.report import claim_words, layer_words
from orchestrator.report.model import Report
from orchestrator.report.wording import Grid, Line, grid, leading_note, notes, title

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": r"$-$", "–": "--", "<": r"\textless{}",
    ">": r"\textgreater{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "\n": " ",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def latex(report: Report) -> str:
    """A table for booktabs; in bold the best number of each column and those not told apart from it."""
    table = grid(report)
    caption = ". ".join(filter(None, (report.caption.rstrip("."), title(report))))
    lines = [
        "% needs \\usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_tex(caption)}.}}",
        rf"  \label{{tab:{report.name}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(table.headings)}}}",
        r"    \toprule",
        *(f"    {line}" for line in _header(table)),
        r"    \midrule",
    ]
    for n, line in enumerate(table.lines):
        if line.kind == "other" and table.lines[n - 1].kind != "other":
            lines.append(r"    \midrule")
        lines.append(f"    {' & '.join(_words(line))} " + r"\\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    lines += [*_bold(report), *(rf"  \\ {{\footnotesize {_tex(note)}}}" for note in notes(report))]
    lines += [r"\end{table}", *_claims(report)]
    for figure in report.layers:
        lines += [
            "",
            "% needs \\usepackage{graphicx}",
            r"\begin{figure}",
            rf"  \includegraphics[width=\linewidth]{{{figure.name}.png}}",
            rf"  \caption{{{_tex(f'{figure.title}. {layer_words.caption(figure)}')}}}",
            rf"  \label{{fig:{figure.name}}}",
            r"\end{figure}",
        ]
    return "\n".join(lines) + "\n"


def _claims(report: Report) -> list[str]:
    """A second table: the claims, and below it each in words."""
    if not report.claims:
        return []
    lines = [
        r"\begin{table}",
        r"  \centering\footnotesize",
        rf"  \caption{{Claims of {_tex(report.name)}. {_tex(claim_words.title(report))}.}}",
        rf"  \label{{tab:{report.name}-claims}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(claim_words.HEADER) - 3)}ll}}",
        r"    \toprule",
        f"    {' & '.join(map(_tex, claim_words.HEADER))} " + r"\\",
        r"    \midrule",
        *(f"    {' & '.join(map(_tex, row))} " + r"\\" for row in claim_words.rows(report)),
        r"    \bottomrule",
        r"  \end{tabular}",
    ]
    for claim in report.claims:
        words = ". ".join(filter(None, (claim.text.rstrip("."), claim_words.statement(claim))))
        lines.append(rf"  \\ {_tex(claim.name)}: {_tex(words)}")
        lines += [rf"  \\ {{\scriptsize {_tex(line)}}}" for line in claim_words.beside(claim)]
    return [*lines, r"\end{table}"]


def _header(table: Grid) -> list[str]:
    """One line; of several figures two: the columns' names, each over its figures, and the figures."""
    if not any(heading.figure for heading in table.headings):
        return [" & ".join(map(_tex, table.header)) + r" \\"]
    names, rules, first = [""], [], 2
    for name, group in itertools.groupby(table.headings, key=lambda heading: heading.name):
        count = len(list(group))
        names.append(rf"\multicolumn{{{count}}}{{c}}{{{_tex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + count - 1}}}")
        first += count
    below = [table.corner, *(heading.figure for heading in table.headings)]
    return [" & ".join(names) + r" \\", " ".join(rules), " & ".join(map(_tex, below)) + r" \\"]


def _bold(report: Report) -> list[str]:
    note = leading_note(report)
    return [rf"  \\ {{\footnotesize \textbf{{bold}}: {_tex(note)}}}"] if note else []


def _words(line: Line) -> list[str]:
    words = [_tex(text) for text in line.texts]
    if line.kind == "other":
        return words
    if line.kind != "ours":
        return [rf"\quad {words[0]}", *words[1:]]
    for i, shown in enumerate(line.shown, 1):
        if shown.leading:
            words[i] = rf"\textbf{{{words[i]}}}"
        elif shown.value is None:
            words[i] = rf"\textit{{{words[i]}}}"
    return words
