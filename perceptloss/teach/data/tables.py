"""Tables with a header line: CSV files, and the sheets of .xlsx workbooks without a spreadsheet library."""

from __future__ import annotations

import csv
import math
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from perceptloss.errors import near
from perceptloss.teach.data.opinion import OpinionsError

__all__ = ["Row", "number", "read_lines", "read_rows", "whole"]

_MAIN: Final = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_DOCUMENT: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_HEADER_WITHIN: Final = 20  # rows; published sheets have titles above the header


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        where: File and number of the line, for messages.
        cells: Text by lower-case name of the column; no entry where a cell is empty.
    """

    where: str
    cells: dict[str, str]

    def text(self, column: str, problems: list[str]) -> str:
        """A cell that must be there; a problem is noted if it is empty."""
        if column not in self.cells:
            problems.append(f"{self.where}: {column} is empty")
        return self.cells.get(column, "")

    def number(self, column: str, problems: list[str]) -> float:
        """A cell that must be a finite number; else a problem is noted and 0 returned."""
        text = self.text(column, problems)
        return number(text, f"{self.where}: {column}", problems) if text else 0.0

    def optional(self, column: str, problems: list[str]) -> float | None:
        """A number, or None where the cell is empty or there is no such column."""
        return self.number(column, problems) if column in self.cells else None


def number(text: str, what: str, problems: list[str]) -> float:
    """A finite number; else a problem is noted and 0 returned."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problems.append(f"{what} is {text!r}, expected a number")
        return 0.0
    return value


def whole(text: str) -> str:
    """A text that spreadsheets may have turned into a number, such as 1600.0 for 1600."""
    return text[:-2] if re.fullmatch(r"\d+\.0", text) else text


def read_lines(path: Path) -> list[tuple[str, list[str]]]:
    """Lines of a text file that are not blank: file and number for messages, and words split at blanks and commas.

    Raises:
        OpinionsError: if it is not text.
    """
    lines = _text(path).splitlines()
    return [(f"{path}, line {n}", re.split(r"[\s,]+", line.strip())) for n, line in enumerate(lines, 1) if line.strip()]


def read_rows(path: Path, columns: Sequence[str], sheet: str | None = None) -> list[Row]:
    """Rows of a .csv or .xlsx file below the first line that names all columns asked for.

    Args:
        path: The file.
        columns: Names that must be there, in any order and case, among others; `mos|dmos`: one of these.
        sheet: Of a workbook; the first by default.

    Raises:
        OpinionsError: if the file cannot be read, or no line among the first 20 names the columns, or there are no
            rows below.
    """
    lines = _read_xlsx(path, sheet) if path.suffix.lower() == ".xlsx" else _read_csv(path)
    needed = [set(column.lower().split("|")) for column in columns]
    for place, (_, cells) in enumerate(lines[:_HEADER_WITHIN]):
        header = [cell.strip().lower() for cell in cells]
        if all(names & set(header) for names in needed):
            return _rows(path, header, lines[place + 1 :])
    found = [cell.strip() for cell in lines[0][1] if cell.strip()] if lines else []
    absent = [column for column in columns if not set(column.lower().split("|")) & {cell.lower() for cell in found}]
    hints = _separated(found) or "".join(near(column.split("|")[0], found) for column in absent[:1])
    wanted = ", ".join(column.replace("|", " or ") for column in columns)
    raise OpinionsError([f"expected the columns {wanted}; found {', '.join(found) or 'nothing'}{hints}"], str(path))


def _separated(found: Sequence[str]) -> str:
    """A hint where the cells of a line are separated by another sign than a comma."""
    sign = next((sign for sign in (";", "\t", "|") if len(found) == 1 and sign in found[0]), "")
    return (
        f"; cells are separated by {sign!r}, expected commas: save the table as comma-separated UTF-8" if sign else ""
    )


def _rows(path: Path, header: Sequence[str], lines: Sequence[tuple[int, list[str]]]) -> list[Row]:
    problems = [f"the column {name} comes twice" for name in dict.fromkeys(header) if name and header.count(name) > 1]
    rows = []
    for n, cells in lines:
        texts = [cell.strip() for cell in cells]
        if any(texts[len(header) :]):
            problems.append(f"line {n} has {len(texts)} cells, but the header has {len(header)}")
        if any(texts):
            filled = {name: text for name, text in zip(header, texts, strict=False) if name and text}
            rows.append(Row(f"{path}, line {n}", filled))
    if not rows:
        problems.append("there are no rows below the header")
    if problems:
        raise OpinionsError(problems, str(path))
    return rows


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OpinionsError(["expected a file, got a folder, pipe or device"], str(path))
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise OpinionsError([f"cannot be read as UTF-8 text: {error}"], str(path)) from None


def _read_csv(path: Path) -> list[tuple[int, list[str]]]:
    try:
        reader = csv.reader(_text(path).splitlines(keepends=True), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise OpinionsError([f"is not CSV: {error}"], str(path)) from None
    return lines


def _read_xlsx(path: Path, sheet: str | None) -> list[tuple[int, list[str]]]:
    try:
        with zipfile.ZipFile(path) as archive:
            strings = _shared_strings(archive)
            root = ElementTree.fromstring(archive.read(_sheet_file(archive, sheet, path)))
    except OpinionsError:
        raise
    except Exception as error:  # damaged files raise BadZipFile, ParseError, KeyError, zlib.error, ...
        raise OpinionsError([f"is not an .xlsx workbook: {error}; export the sheet as .csv"], str(path)) from None
    lines = []
    for n, row in enumerate(root.iter(f"{_MAIN}row"), 1):
        cells: dict[int, str] = {}
        for cell in row.iter(f"{_MAIN}c"):
            cells[_column(cell.get("r", ""), len(cells))] = _value(cell, strings)
        lines.append((int(row.get("r", n)), [cells.get(i, "") for i in range(max(cells, default=-1) + 1)]))
    return lines


def _sheet_file(archive: zipfile.ZipFile, sheet: str | None, path: Path) -> str:
    book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    sheets = {str(entry.get("name")): str(entry.get(f"{_DOCUMENT}id")) for entry in book.iter(f"{_MAIN}sheet")}
    if sheet is not None and sheet not in sheets:
        raise OpinionsError([f"expected the sheet {sheet!r}; found {', '.join(sheets)}"], str(path))
    wanted = sheets[sheet] if sheet is not None else next(iter(sheets.values()))
    links = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    target = {link.get("Id"): str(link.get("Target")) for link in links}[wanted]
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _shared_strings(archive: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in archive.namelist():
        return []
    table = ElementTree.fromstring(archive.read("xl/sharedStrings.xml"))
    return [_join(entry.iter(f"{_MAIN}t")) for entry in table.iter(f"{_MAIN}si")]


def _value(cell: ElementTree.Element, strings: Sequence[str]) -> str:
    if cell.get("t") == "inlineStr":
        return _join(cell.iter(f"{_MAIN}t"))
    text = cell.findtext(f"{_MAIN}v") or ""
    return strings[int(text)] if cell.get("t") == "s" and text else text


def _join(parts: Iterable[ElementTree.Element]) -> str:
    return "".join(part.text or "" for part in parts)


def _column(reference: str, otherwise: int) -> int:
    """Number of a column from the name of a cell, such as 27 for AB4."""
    letters = re.match(r"[A-Z]+", reference)
    if letters is None:
        return otherwise
    place = 0
    for letter in letters.group():
        place = place * 26 + ord(letter) - ord("A") + 1
    return place - 1
