"""A catalog of translations, in gettext's PO format, and the translation of a finished English sentence.

A message is made where it is known what went wrong, often in the daemon, whose locale is not that of the terminal. So
messages, logs and JSON are English everywhere, and only the terminal's side translates: it finds the template that a
sentence was made from, such as `{repo} is not in the cache.`, and fills the values into the template's translation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Formatter

from hfpeer.language.cells import cells

CATALOGS = Path(__file__).parent
"""The folder of the PO files; the name of each is its language."""
COUNT, AMOUNT = "count", "amount"
"""The names of placeholders that take a number only, and a number of bytes."""
MAX_DEPTH = 4
"""How deep translated values lie in each other: a sentence in a sentence."""

MAX_FACTS = 8
"""A list of more facts stays English: it would be names."""
SHORT_WORDS, SURE_LENGTH = 4, 12

_SENTENCE_END = re.compile(r"(?<=[.!?…:;]) (?=\S)")
_NEXT_SENTENCE = re.compile(r"[.!?] [A-Z`]")
"""Within a value: it holds more than one sentence, so the sentences are looked up one by one."""
_CHOICES = re.compile(r"'[^']+'(?: or '[^']+')+")
_BETWEEN_WIDE = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
"""The space around a placeholder that turned out to be Chinese."""
_COLUMNS = re.compile(r"( {2,})")
_NARROW = {COUNT: re.compile(r"[\d,.]+"), AMOUNT: re.compile(r"[\d,.]+ [kMGTPE]?B")}
_WIDE = {".": "。", ":": "：", ";": "；"}
_WIDE_END = re.compile(r"[\u3000-\u303f\uff00-\uffef]$")


class Template:
    """A text with named placeholders, in the syntax of `str.format`."""

    def __init__(self, text: str) -> None:
        self.literals, self.names = [""], list[str]()
        for literal, name, _, _ in Formatter().parse(text):
            self.literals[-1] += literal
            if name is not None:
                self.names.append(name)
                self.literals.append("")
        self.literal_length = sum(map(len, self.literals))
        ticks = 0
        self.code_names = set[str]()
        """Of placeholders between backticks: commands and names, which are the same in every language."""
        for literal, name in zip(self.literals, self.names, strict=False):
            ticks += literal.count("`")
            if ticks % 2:
                self.code_names.add(name)

    def values(self, text: str) -> list[str] | None:
        """The value of each placeholder, if the text was made from this template. The shortest value first."""
        first, last = self.literals[0], self.literals[-1]
        end = len(text) - len(last)
        if not (text.startswith(first) and text.endswith(last)) or end < len(first):
            return None
        found, position = list[str](), len(first)
        for literal in self.literals[1:-1]:
            index = text.find(literal, position, end)
            if index < 0:
                return None
            found.append(text[position:index])
            position = index + len(literal)
        found.append(text[position:end])
        named = zip(self.names, found, strict=True)
        return found if all(name not in _NARROW or _NARROW[name].fullmatch(value) for name, value in named) else None

    def has_ends(self, first: str, last: str) -> bool:
        """Whether texts of the template may begin and end with these characters."""
        begins, ends = self.literals[0], self.literals[-1]
        return (not begins or begins[0] == first) and (not ends or ends[-1] == last)

    def may_hold(self, value: str) -> bool:
        """Whether a text can be a value. Two spaces stand between columns, and never in a sentence. A template with few
        words of its own, such as `{value} is not {choice}.`, holds short values only: else it would fit by chance."""
        is_short = len(value.split()) <= SHORT_WORDS
        is_one = "  " not in value and _NEXT_SENTENCE.search(value) is None
        return is_one and (is_short or self.literal_length >= SURE_LENGTH)

    def filled(self, values: Mapping[str, str]) -> str:
        """The template with its values. A value that is not given is empty."""
        names = [*(values.get(name, "") for name in self.names), ""]
        return "".join(part for pair in zip(self.literals, names, strict=True) for part in pair)


class Catalog:
    """The translations into one language, by their English templates."""

    def __init__(self, translations: Mapping[str, str]) -> None:
        self._translations = translations
        templates = [(Template(key), value) for key, value in translations.items() if value]
        self._exact = {
            template.literals[0]: Template(value).filled({}) for template, value in templates if not template.names
        }
        templates = [(template, value) for template, value in templates if template.names]
        # The template with most words of its own comes first: `{a} is full.` before `{a}.`
        templates.sort(key=lambda pair: -pair[0].literal_length)
        self._templates = templates
        self._by_ends: dict[tuple[str, str], list[tuple[Template, str]]] = {}

    def message(self, template: str, values: Mapping[str, str]) -> str:
        """A message by its template, with values; in English if the catalog lacks it."""
        return Template(self._translations.get(template) or template).filled(values)

    def word(self, text: str) -> str:
        """A fixed text, such as the heading of a column; unchanged if the catalog lacks it."""
        return self._exact.get(text, text)

    def text(self, text: str) -> str:
        """One sentence or several, a line of columns, or a text for help. It stays English if the catalog lacks it."""
        return self._text(text, MAX_DEPTH)

    def _text(self, text: str, depth: int) -> str:
        whole = self._whole(text, depth)
        if whole is not None:
            return whole
        if text[:1] == " " and text[1:2] not in ("", " "):
            return self._text(text[1:], depth)
        if _COLUMNS.search(text):
            return self._columns(_COLUMNS.split(text), depth)
        if _CHOICES.fullmatch(text):
            return text.replace(" or ", self.word(" or "))
        return self._sentences(_SENTENCE_END.split(text), depth)

    def _columns(self, parts: Sequence[str], depth: int) -> str:
        """Cells and the spaces between them, in turn. A column begins where it did, if there is room."""
        line = ""
        for cell, gap in zip(parts[::2], [*parts[1::2], ""], strict=True):
            translated = self._text(cell, depth)
            line += translated
            if gap:
                line += " " * max(2, cells(cell) + len(gap) - cells(translated))
        return line

    def _sentences(self, sentences: Sequence[str], depth: int) -> str:
        translated, start = "", 0
        while start < len(sentences):
            for stop in range(len(sentences), start, -1):
                found = self._whole(" ".join(sentences[start:stop]), depth) if stop - start < len(sentences) else None
                if found is not None:
                    break
            else:
                found, stop = self._listed(sentences[start], depth), start + 1
            if translated and not _WIDE_END.search(translated):
                translated += " "
            translated, start = translated + found, stop
        return translated

    def _listed(self, text: str, depth: int) -> str:
        """Facts with commas between them, such as `3 files, 1.2 MB`, each translated; the text itself if one of them is
        a sentence without a translation."""
        end = text[-1:] if text[-1:] in _WIDE else ""
        facts = text.removesuffix(end).split(", ")
        if len(facts) > MAX_FACTS or (len(facts) == 1 and not end):
            return text
        translated, start = list[str](), 0
        while start < len(facts):
            for stop in range(len(facts), start, -1):
                found = self._whole(", ".join(facts[start:stop]), depth)
                if found is not None:
                    break
            else:
                found, stop = facts[start], start + 1
                if len(found.split()) > 2:
                    return text
            translated.append(found)
            start = stop
        return text if translated == facts else "，".join(translated) + _WIDE.get(end, "")

    def _whole(self, text: str, depth: int) -> str | None:
        found = self._exact.get(text)
        if found is not None:
            return found
        if depth == 0 or " " not in text:
            return None
        for template, translation in self._candidates(text):
            values = template.values(text)
            if values is not None and all(template.may_hold(value) for value in values):
                named = {
                    name: value if name in template.code_names else self._text(value, depth - 1)
                    for name, value in zip(template.names, values, strict=True)
                }
                return _BETWEEN_WIDE.sub("", Template(translation).filled(named))
        return None

    def _candidates(self, text: str) -> list[tuple[Template, str]]:
        """The templates that begin and end as a text does. There are thousands of others, and many cells."""
        ends = text[0], text[-1]
        if ends not in self._by_ends:
            self._by_ends[ends] = [pair for pair in self._templates if pair[0].has_ends(*ends)]
        return self._by_ends[ends]


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a page of help, each in one line: so they are looked up."""
    found = re.split(r"\n\s*\n", text.replace("\b", ""))
    return [" ".join(paragraph.split()) for paragraph in found if paragraph.strip()]


def read_catalog(po: str) -> dict[str, str]:
    """The translations of a PO file, by their English text; without its header and what is fuzzy or obsolete."""
    translations = dict[str, str]()
    for entry in re.split(r"\n\s*\n", po):
        if re.search(r"^#,.*\bfuzzy\b", entry, re.MULTILINE):
            continue
        texts = {"msgid": "", "msgstr": ""}
        current = None
        for line in entry.splitlines():
            keyword, _, quoted = line.partition(" ")
            if keyword in texts:
                current = keyword
            elif line.startswith('"'):
                quoted = line
            else:
                continue
            if current:
                # PO quotes as JSON does.
                texts[current] += json.loads(quoted)
        if texts["msgid"]:
            translations[texts["msgid"]] = texts["msgstr"]
    return translations


def catalog_of(language: str) -> Catalog:
    """The catalog of a language, such as `zh_CN`; that of `en` is empty. It is read when it is first wanted."""
    return Catalog({}) if language == "en" else _catalog_at(CATALOGS / f"{language}.po")


@cache
def _catalog_at(path: Path) -> Catalog:
    return Catalog(read_catalog(path.read_text(encoding="utf-8")))
