"""The King James Version as plain text, and its split into training, validation and held-out parts.

The text comes from the Debian package `bible-kjv` (data in `bible-kjv-text`). Its program prints one
verse a line behind a reference such as `1Sm3:4`. Here the verse numbers go, the verses of a chapter run
together as one paragraph, and each chapter keeps a one-line heading such as `1 Samuel 3`.
"""

import dataclasses
import re
import subprocess

# Reference prefix of the `bible` program -> the book's name as a reader knows it.
BOOKS = {
    "Ge": "Genesis", "Exo": "Exodus", "Lev": "Leviticus", "Num": "Numbers", "Deu": "Deuteronomy",
    "Josh": "Joshua", "Jdgs": "Judges", "Ruth": "Ruth", "1Sm": "1 Samuel", "2Sm": "2 Samuel",
    "1Ki": "1 Kings", "2Ki": "2 Kings", "1Chr": "1 Chronicles", "2Chr": "2 Chronicles",
    "Ezra": "Ezra", "Neh": "Nehemiah", "Est": "Esther", "Job": "Job", "Psa": "Psalm",
    "Prv": "Proverbs", "Eccl": "Ecclesiastes", "SSol": "Song of Solomon", "Isa": "Isaiah",
    "Jer": "Jeremiah", "Lam": "Lamentations", "Eze": "Ezekiel", "Dan": "Daniel", "Hos": "Hosea",
    "Joel": "Joel", "Amos": "Amos", "Obad": "Obadiah", "Jonah": "Jonah", "Mic": "Micah",
    "Nahum": "Nahum", "Hab": "Habakkuk", "Zep": "Zephaniah", "Hag": "Haggai", "Zec": "Zechariah",
    "Mal": "Malachi", "Mat": "Matthew", "Mark": "Mark", "Luke": "Luke", "John": "John",
    "Acts": "Acts", "Rom": "Romans", "1Cor": "1 Corinthians", "2Cor": "2 Corinthians",
    "Gal": "Galatians", "Eph": "Ephesians", "Phi": "Philippians", "Col": "Colossians",
    "1Th": "1 Thessalonians", "2Th": "2 Thessalonians", "1Tim": "1 Timothy", "2Tim": "2 Timothy",
    "Titus": "Titus", "Phmn": "Philemon", "Heb": "Hebrews", "Jas": "James", "1Pet": "1 Peter",
    "2Pet": "2 Peter", "1Jn": "1 John", "2Jn": "2 John", "3Jn": "3 John", "Jude": "Jude",
    "Rev": "Revelation",
}

# Whole chapters, first and last included, from narrative, law, poetry, prophecy, gospel and letter.
# Passages with a near-verbatim twin elsewhere in the text (synoptic miracles, Kings/Chronicles,
# repeated psalms) are avoided: they would measure recall of the twin.
HELD_OUT = [
    ("Genesis", 37, 39), ("Deuteronomy", 28, 28), ("1 Samuel", 24, 25), ("Psalm", 90, 95),
    ("Proverbs", 25, 26), ("Isaiah", 52, 55), ("Luke", 15, 16), ("Acts", 26, 27), ("Romans", 11, 12),
]
VALIDATION = [
    ("Exodus", 2, 3), ("Judges", 16, 16), ("Nehemiah", 4, 4), ("Job", 28, 29), ("Psalm", 30, 33),
    ("Jeremiah", 18, 18), ("John", 9, 9), ("Hebrews", 11, 11),
]

_REFERENCE = re.compile(r"^(\d?[A-Za-z]+)(\d+):(\d+) (.*)$")


@dataclasses.dataclass
class Chapter:
    book: str
    number: int
    verses: list[str]

    @property
    def heading(self):
        return f"{self.book} {self.number}"

    def text(self):
        return f"{self.heading}\n\n{' '.join(self.verses)}"


@dataclasses.dataclass
class Segment:
    """Chapters that follow one another in one book, joined, with the places where a verse starts."""

    text: str
    verse_starts: list[int]
    ends_book: bool


def read_raw(path=None):
    """Verse-per-line text: from a file made earlier, or from the `bible` program."""
    if path:
        with open(path, encoding="ascii") as file:
            return file.read()
    # -f switches the program's line-wrapped layout off.
    command = ["bible", "-f", "gen1:1-rev22:21"]
    return subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout


def parse_chapters(raw):
    chapters = []
    for line in raw.splitlines():
        if not line.strip():
            continue
        match = _REFERENCE.match(line)
        if not match:
            raise ValueError(f"not a verse line: {line!r}")
        book, number, verse = BOOKS[match[1]], int(match[2]), " ".join(match[4].split())
        if not chapters or (chapters[-1].book, chapters[-1].number) != (book, number):
            chapters.append(Chapter(book, number, []))
        if len(chapters[-1].verses) + 1 != int(match[3]):
            raise ValueError(f"verses out of order at {line!r}")
        chapters[-1].verses.append(verse)
    return chapters


def _in_ranges(chapter, ranges):
    return any(chapter.book == book and first <= chapter.number <= last for book, first, last in ranges)


def join(chapters):
    return "\n\n".join(chapter.text() for chapter in chapters) + "\n"


def _segments(chapters, kept):
    """Runs of kept chapters; a run stops at a book's end and at every chapter that is not kept."""
    runs, run = [], []
    for index, chapter in enumerate(chapters):
        if kept(chapter):
            run.append(chapter)
        last = index + 1 == len(chapters) or chapters[index + 1].book != chapter.book
        if run and (last or not kept(chapter)):
            runs.append((run, last and kept(chapter)))
            run = []
    for run, ends_book in runs:
        text, starts = "", []
        for chapter in run:
            if text:
                text += "\n\n"
            starts.append(len(text))
            text += chapter.heading + "\n\n"
            for index, verse in enumerate(chapter.verses):
                if index:
                    text += " "
                starts.append(len(text))
                text += verse
        yield Segment(text, starts, ends_book)


def split(chapters):
    """Training segments, validation text and held-out text; no chapter is in two of them."""
    held_out = [c for c in chapters if _in_ranges(c, HELD_OUT)]
    validation = [c for c in chapters if _in_ranges(c, VALIDATION)]
    kept = lambda c: not _in_ranges(c, HELD_OUT) and not _in_ranges(c, VALIDATION)
    return list(_segments(chapters, kept)), join(validation), join(held_out)
