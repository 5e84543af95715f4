"""metadata.csv: each row is what its writer meant, or an error with the line."""

import os
import unicodedata
from pathlib import Path

import pytest
from refusals import refused

from rvq_jax.data.folder import scan

CASES = Path(__file__).parents[3] / "shared" / "cases" / "metadata"
NFC, NFD = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))


@pytest.fixture
def place(tmp_path) -> Path:
    for name in ("s1.wav", "s2.wav", "s3.wav", "s4.wav", "sub/s5.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def captions(place: Path, text: str, **options) -> dict[str, str]:
    (place / "metadata.csv").write_text(text, newline="")
    return {clip.name: clip.caption for clip in scan(place, **options)}


READ = {
    "crlf": ("file,caption\r\ns1.wav,a\r\ns2.wav,b\r\n", {"s1.wav": "a", "s2.wav": "b"}),
    "file_name": ("file_name,text\ns1.wav,a\ns2.wav,b\n", {"s1.wav": "a", "s2.wav": "b"}),
    "transcription": (
        "file_name,transcription\ns1.wav,a\ns2.wav,b",
        {"s1.wav": "a", "s2.wav": "b"},
    ),
    "no captions": ("file\ns1.wav\ns2.wav\n", {"s1.wav": "", "s2.wav": ""}),
    "labels only": ("label,file\nx,s1.wav\ny,s2.wav\n", {"s1.wav": "", "s2.wav": ""}),
    "upper case": ("\ufeffFile , Caption\ns1.wav,a\ns2.wav,b\n", {"s1.wav": "a", "s2.wav": "b"}),
    "blank lines": ("file,caption\n\ns1.wav,a\n\n,\ns2.wav,b\n", {"s1.wav": "a", "s2.wav": "b"}),
    "many lines": (
        'file,caption\ns1.wav,"a\n\nb"\ns2.wav,c\n',
        {"s1.wav": "a\n\nb", "s2.wav": "c"},
    ),
    "lines like names": (
        'file,caption\ns1.wav,"one\ntwo, three\ns9.wav,four"\ns2.wav,c\n',
        {"s1.wav": "one\ntwo, three\ns9.wav,four", "s2.wav": "c"},
    ),
    "quotes inside": (
        'file,caption\ns1.wav,the "real" one\ns2.wav,"a ""b"", c"\n',
        {"s1.wav": 'the "real" one', "s2.wav": 'a "b", c'},
    ),
    "./": ("file,caption\n./s1.wav,a\nsub/../s2.wav,b\n", {"s1.wav": "a", "s2.wav": "b"}),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read_as_it_is_meant(place, name):
    text, want = READ[name]
    assert captions(place, text) == want


REFUSED = {
    "open quote": (
        'file,caption\ns1.wav,a\ns2.wav,"Heroes\ns3.wav,c\ns4.wav,d\n',
        "line 3",
        "quote",
    ),
    "open quote, last row": ('file,caption\ns1.wav,a\ns2.wav,"Heroes\n', "line 3", "quote"),
    "closed by another": ('file,caption\ns1.wav,"a\ns2.wav,"b"\n', "line 2", "quote"),
    "closed at the end of another": (
        'file,caption\ns1.wav,"a\ns2.wav,b"\ns3.wav,c\n',
        "line 2",
        "quote",
        "s2.wav",
    ),
    "open quote in front": ('file,caption\n"s1.wav,a\ns2.wav,b\n', "line 2", "quote"),
    "a comma too many": (
        "file,label,caption\ns1.wav,piano,slow piano, soft\ns2.wav,piano,b\n",
        "line 2",
        "4 fields",
        "quotes",
    ),
    "a comma too few": ("file,label,caption\ns1.wav,x,a\ns2.wav,b\n", "line 3", "2 fields"),
    "a line after captions of many": (
        'file,caption\ns1.wav,"one\ntwo\nthree"\n\ns2.wav,b\nnot_there.wav,c\n',
        "line 7",
        "not_there.wav",
    ),
    "a line after blank ones": ("file,caption\n\n\ns1.wav,b\nlost.wav,c\n", "line 5", "lost.wav"),
    "twice": ("file,caption\ns1.wav,a\ns1.wav,b\n", "line 3", "twice"),
    "twice by ./": ("file,caption\ns1.wav,a\n./s1.wav,b\n", "line 3", "twice", "'s1.wav'"),
    "twice by ..": ("file,caption\nsub/../s1.wav,a\ns1.wav,b\n", "line 3", "twice"),
    "twice by //": ("file,caption\nsub/s5.wav,a\nsub//s5.wav,b\n", "line 3", "twice"),
    "twice by a link": ("file,caption\ns1.wav,a\nlink.wav,b\n", "line 3", "twice"),
    "a column twice": ("file,caption,caption\ns1.wav,a,b\n", "'caption' twice"),
    "a column misspelled": ("file,captoin\ns1.wav,a\n", "'captoin'", "'caption'"),
    "splits misspelled": ("file,splits\ns1.wav,a\n", "'splits'", "'split'"),
    "no files": ("caption\na\n", "'file'"),
    "another separator": ("file;caption\ns1.wav;a\n", "'file'"),
    "a folder": ("file,caption\nsub,a\n", "line 2", "'sub'", "not there"),
    "a name that is too long": (f"file,caption\n{'x' * 999}.wav,a\n", "line 2", "not there"),
    "too many columns": ("file" + ",x" * 1000, "1001 columns"),
    "control codes": ("file,caption\n\x1b[31mred.wav,a\n", "line 2", "not there"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_an_error_with_its_line(place, name):
    text, *words = REFUSED[name]
    (place / "link.wav").symlink_to("s1.wav")
    refused(lambda: captions(place, text), "metadata.csv", *words)


def test_captions_are_asked_for_where_they_are_needed(place):
    text = "file,label\ns1.wav,x\ns2.wav,y\n"
    assert captions(place, text) == {"s1.wav": "", "s2.wav": ""}
    refused(lambda: captions(place, text, captioned=True), "metadata.csv", "'caption'")


@pytest.mark.parametrize(("listed", "stored"), [(NFC, NFD), (NFD, NFC)])
def test_accents_of_either_form_name_the_file(place, listed, stored):
    (place / stored).mkdir()
    (place / stored / f"{stored}.wav").write_bytes(b"")
    text = f"file,caption\n{listed}/{listed}.wav,a\ns1.wav,b\n"
    (place / "metadata.csv").write_text(text)
    found = {clip.caption: clip for clip in scan(place)}
    assert found["a"].path.is_file()
    text = f"file,caption\n{listed}/{listed}.wav,a\n{stored}/{stored}.wav,b\n"
    (place / "metadata.csv").write_text(text)
    refused(lambda: scan(place), "line 3", "twice")


def test_a_name_that_is_no_text(place):
    """It can be in a folder, not in a table, and what is kept of it is text."""
    os.rename(place / "s1.wav", os.fsencode(place) + b"/caf\xe9 one.wav")
    clips = {clip.caption: clip for clip in scan(place)}
    clip = clips["caf\\xe9 one"]
    assert clip.path.is_file() and clip.name == "caf\\xe9 one.wav"
    (place / "metadata.csv").write_bytes(b"file,caption\ns2.wav,a\ncaf\xe9 one.wav,b\n")
    refused(lambda: scan(place), "metadata.csv", "UTF-8")


def test_one_file_under_two_names_is_one_clip(place):
    """Else it could be trained on and held out."""
    (place / "a.wav").symlink_to("s1.wav")
    (place / "again").symlink_to("sub")
    assert [clip.name for clip in scan(place)] == [f"s{i}.wav" for i in range(1, 5)] + [
        "sub/s5.wav"
    ]


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not at hand")
@pytest.mark.parametrize(
    ("name", "line"), [("open_quote", 3), ("surplus_field", 2), ("line_number", 7)]
)
def test_the_shared_cases(place, name, line):
    text = (CASES / f"{name}.csv").read_text()
    refused(lambda: captions(place, text), f"line {line}:")
