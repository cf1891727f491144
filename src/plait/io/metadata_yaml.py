"""The part of YAML that metadata beside a table needs: keys, texts, lists, lists of keys.

Numbers and dates stay text. What is beyond this (anchors, tags, block scalars, documents) is an
error and not a guess.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plait.errors import FileFormatError

_PLAIN = re.compile(r"[A-Za-z0-9_/(][^\n\t]*")
_RESERVED = {"", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_KEY = re.compile(r"""^(?P<key>\w[\w \-./()%+]*|"[^"]*"|'[^']*')\s*:(?:\s+(?P<value>.*))?$""")
Line = tuple[int, int, str]  # number, indent, text


def write_yaml(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, in its order; None is left out."""
    return "".join(f"{line}\n" for line in _written(values, ""))


def _written(values: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in values.items():
        if value is None:
            continue
        if not isinstance(value, list | tuple):
            lines.append(f"{indent}{key}: {_scalar(value)}")
            continue
        lines.append(f"{indent}{key}:" if value else f"{indent}{key}: []")
        for item in value:
            if isinstance(item, Mapping):
                inner = _written(item, f"{indent}    ")
                inner[0] = f"{indent}  - {inner[0].lstrip()}"
                lines.extend(inner)
            else:
                lines.append(f"{indent}  - {_scalar(item)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    # Other blanks and ends of lines would not be read as they are.
    if not text.isprintable():
        return json.dumps(text)
    looks_otherwise = text.lower() in _RESERVED or re.fullmatch(r"[\d.+\-eE_:xo]+", text)
    date = re.fullmatch(r"\d{4}-\d\d-\d\d", text)
    risky = ": " in text or " #" in text or text.endswith((":", " ")) or not _PLAIN.fullmatch(text)
    if risky or (looks_otherwise and not date):
        return json.dumps(text, ensure_ascii=False)
    return text


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """Return the mapping that YAML holds, with booleans for true and false and text for the rest.

    Raises
    ------
    FileFormatError
        The text is not of the supported part; the message names the line.
    """
    lines: list[Line] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*$", "", raw) if not re.search(r"[\"']", raw) else raw
        if re.match(r"\s*(#.*)?$", line) or line.strip() == "---":
            continue
        if "\t" in line[: len(line) - len(line.lstrip())]:
            raise FileFormatError(f"{where}, line {number}: YAML is not indented with tabs.")
        lines.append((number, len(line) - len(line.lstrip(" ")), line.strip()))
    values, rest = _mapping(lines, 0, lines[0][1] if lines else 0, where)
    if rest < len(lines):
        raise FileFormatError(f"{where}, line {lines[rest][0]}: unexpected indentation.")
    return values


def read_yaml_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping that a file holds; see `read_yaml`."""
    place = Path(path)
    if not place.is_file():
        raise FileFormatError(f"{path}: there is no such file.")
    try:
        text = place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{path} is not text in UTF-8: {error}.") from None
    return read_yaml(text, str(path))


def _mapping(lines: list[Line], at: int, indent: int, where: str) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    while at < len(lines) and lines[at][1] == indent and not _is_item(lines[at][2]):
        number, _, text = lines[at]
        match = _KEY.match(text)
        if match is None:
            raise FileFormatError(f"{where}, line {number}: expected 'key: value', found {text!r}.")
        key, value = match["key"].strip("\"'"), (match["value"] or "").strip()
        at += 1
        deeper = at < len(lines) and lines[at][1] > indent
        if value:
            while at < len(lines) and lines[at][1] > indent:  # a long text goes on
                value += f" {lines[at][2]}"
                at += 1
            values[key] = _value(value, number, where)
        elif at < len(lines) and _is_item(lines[at][2]) and lines[at][1] >= indent:
            values[key], at = _list(lines, at, lines[at][1], where)
        elif deeper:
            values[key], at = _mapping(lines, at, lines[at][1], where)
        else:
            values[key] = None
    return values, at


def _list(lines: list[Line], at: int, indent: int, where: str) -> tuple[list[Any], int]:
    items: list[Any] = []
    while at < len(lines) and lines[at][1] == indent and _is_item(lines[at][2]):
        number, _, text = lines[at]
        inner = text[1:].lstrip()
        if _KEY.match(inner) and inner[:1] not in "\"'":
            # The first key of an item stands behind the dash: read it as a line of its own.
            column = indent + len(text) - len(inner)
            lines[at] = (number, column, inner)
            item, at = _mapping(lines, at, column, where)
            items.append(item)
            continue
        at += 1
        while at < len(lines) and lines[at][1] > indent and not _is_item(lines[at][2]):
            inner += f" {lines[at][2]}"
            at += 1
        items.append(_value(inner, number, where))
    return items, at


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _value(text: str, number: int, where: str) -> Any:
    if text[:1] in "&*!|>%@`{":
        raise FileFormatError(
            f"{where}, line {number}: {text[:1]!r} begins a part of YAML that plait does not read."
        )
    if text[:1] == '"':
        try:
            return json.loads(text)
        except ValueError:
            raise FileFormatError(f"{where}, line {number}: {text!r} is not closed.") from None
    if text[:1] == "'":
        if len(text) < 2 or text[-1] != "'":
            raise FileFormatError(f"{where}, line {number}: {text!r} is not closed.")
        return text[1:-1].replace("''", "'")
    if text[:1] == "[":
        if text[-1] != "]":
            raise FileFormatError(f"{where}, line {number}: {text!r} is not closed.")
        inner = text[1:-1].strip()
        return [_value(part.strip(), number, where) for part in inner.split(",")] if inner else []
    lowered = text.lower()
    if lowered in ("true", "false"):
        return lowered == "true"
    return None if lowered in ("", "~", "null") else text
