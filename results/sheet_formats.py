"""Sheets as text: terminal, Markdown, LaTeX, HTML and data. Names are shown as they are and never taken for markup."""

import csv
import html
import io
import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from results.formats import escape_markdown, inert
from results.names import plain
from results.sheet import Place, Sheet

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "…": r"\ldots{}",
}


def draw(sheets: Sequence[Sheet], console: Console) -> None:
    """Draw sheets on a terminal."""
    for sheet in sheets:
        console.print(Text(sheet.title, style="bold"), soft_wrap=True)
        if not sheet.columns:
            console.print(Text("no cells yet"))
            continue
        drawn = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        drawn.add_column(Text(sheet.corner), overflow="fold", min_width=min(20, max(map(len, sheet.rows), default=1)))
        for name in sheet.columns:
            drawn.add_column(Text(name), justify="right", overflow="fold")
        for row in sheet.rows:
            drawn.add_row(Text(row), *(_styled(sheet.place(row, column)) for column in sheet.columns))
        console.print(drawn)
        for line in sheet.notes:
            console.print(Text(line, style="dim"), soft_wrap=True)


def markdown(sheets: Sequence[Sheet]) -> str:
    """Sheets as GitHub tables."""
    return "\n".join(_markdown(sheet) for sheet in sheets)


def latex(sheets: Sequence[Sheet]) -> str:
    """Sheets as `tabular` of booktabs, to be put into a document that loads it; every character is text."""
    return "\n".join(_latex(sheet) for sheet in sheets)


def html_page(sheets: Sequence[Sheet]) -> str:
    """Sheets as one page without scripts, which loads nothing."""
    style = (
        "body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:1200px;padding:0 1rem}table{border-collapse:collapse}"
        "th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #8888}th:first-child{text-align:left}"
        "li,.dim{color:#777;font-size:.85rem}div{overflow-x:auto}:root{color-scheme:light dark}"
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    body = "".join(_html(sheet) for sheet in sheets)
    top = f'<html lang="en"><head>{head}<title>mae-bench</title><style>{style}</style></head>'
    return f"<!doctype html>\n{top}<body>\n{body}</body></html>\n"


def csv_text(sheets: Sequence[Sheet]) -> str:
    """One line for each place that holds something."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(_FIELDS), lineterminator="\n")
    writer.writeheader()
    for sheet in sheets:
        for line in flat(sheet):
            writer.writerow({name: inert(value) for name, value in line.items()})
    return file.getvalue()


def json_text(sheets: Sequence[Sheet]) -> str:
    """The same as data, with the notes."""
    data = [{"title": sheet.title, "places": flat(sheet), "notes": list(sheet.notes)} for sheet in sheets]
    return json.dumps(data, indent=2) + "\n"


_FIELDS: tuple[str, ...] = (
    "title",
    "row",
    "column",
    "mean",
    "std",
    "seeds",
    "state",
    "published",
    "difference",
    "verdict",
    "best",
    "unlike",
    "source",
    "place",
)


def flat(sheet: Sheet) -> list[dict[str, str | int | float | None]]:
    """One dict for each place that holds something."""
    found = []
    for row in sheet.rows:
        for column in sheet.columns:
            place = sheet.place(row, column)
            if place == Place():
                continue
            known = place.published
            gap = place.difference
            values = (
                sheet.title,
                row,
                column,
                place.mean,
                place.std,
                place.seeds or None,
                place.state or None,
                known.value if known else None,
                None if gap is None else round(gap, 6),
                place.verdict,
                place.best,
                "; ".join(place.unlike) or None,
                known.source if known else None,
                known.place if known else None,
            )
            found.append(dict(zip(_FIELDS, values, strict=True)))
    return found


def escape_latex(text: str) -> str:
    """A text that LaTeX shows as it is; characters that its fonts may lack become `?`."""
    return "".join(_LATEX.get(char, char if char.isascii() or char.isalpha() else "?") for char in plain(text))


def _styled(place: Place) -> Text:
    text = Text(place.measured_text, style="bold" if place.best else "")
    if place.published_text:
        text.append(" " if place.measured_text else "")
        text.append(place.published_text, style="dim")
    return text if text.plain else Text("-")


def _markdown(sheet: Sheet) -> str:
    head = [sheet.corner, *sheet.columns]
    lines = [[escape_markdown(text) for text in head], [":--", *["--:"] * len(sheet.columns)]]
    for row in sheet.rows:
        lines.append([escape_markdown(row), *(_markdown_place(sheet.place(row, column)) for column in sheet.columns)])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = "".join(f"- {escape_markdown(line)}\n" for line in sheet.notes)
    return f"# {escape_markdown(sheet.title)}\n\n{table}\n{notes}"


def _markdown_place(place: Place) -> str:
    measured = escape_markdown(place.measured_text)
    words = [f"**{measured}**" if place.best else measured, escape_markdown(place.published_text)]
    return " ".join(word for word in words if word) or "-"


def _latex(sheet: Sheet) -> str:
    lines = [f"% {escape_latex(sheet.title)}", rf"\begin{{tabular}}{{l{'r' * len(sheet.columns)}}}", r"\toprule"]
    lines.append(" & ".join(_group(text) for text in (sheet.corner, *sheet.columns)) + r" \\")
    lines.append(r"\midrule")
    for row in sheet.rows:
        lines.append(" & ".join([_group(row), *(_latex_place(sheet.place(row, column)) for column in sheet.columns)]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", "", r"\begin{itemize}\small"]
    lines += [rf"\item {_group(line)}" for line in sheet.notes]
    lines.append(r"\end{itemize}")
    return "\n".join(lines) + "\n"


def _group(text: str) -> str:
    """Text in braces: a leading bracket is not taken for an argument of the command before."""
    return f"{{{escape_latex(text)}}}"


def _latex_place(place: Place) -> str:
    measured = escape_latex(place.measured_text)
    words = [rf"\textbf{{{measured}}}" if place.best else measured, escape_latex(place.published_text)]
    return f"{{{' '.join(word for word in words if word) or '-'}}}"


def _html(sheet: Sheet) -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in (sheet.corner, *sheet.columns))
    body = ""
    for row in sheet.rows:
        body += f"<tr><th>{_text(row)}</th>"
        body += "".join(f"<td>{_html_place(sheet.place(row, column))}</td>" for column in sheet.columns) + "</tr>\n"
    notes = "".join(f"<li>{_text(line)}</li>" for line in sheet.notes)
    table = f"<div><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>"
    return f"<h1>{_text(sheet.title)}</h1>\n{table}\n<ul>{notes}</ul>\n"


def _html_place(place: Place) -> str:
    measured = _text(place.measured_text)
    words = [f"<b>{measured}</b>" if place.best else measured]
    if place.published_text:
        words.append(f'<span class="dim">{_text(place.published_text)}</span>')
    return " ".join(word for word in words if word) or "-"


def _text(text: str) -> str:
    return html.escape(plain(text))
