"""FASTA: any piece of any sequence as it stands in the file, however it is packed and indexed."""

import gzip
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait.errors import FileFormatError, LabelError
from plait.io import fasta
from plait.io.fasta import Fasta, is_fasta


def text_of(sequences, width, end="\n"):
    lines = []
    for name, bases in sequences.items():
        lines.append(f">{name} some words")
        lines += [bases[i : i + width] for i in range(0, len(bases), width)]
    return (end.join(lines) + end).encode()


def bgzipped(raw, size):
    """What bgzip writes: members with their length in the header, and an empty one at the end."""
    packed = b""
    for piece in [raw[i : i + size] for i in range(0, len(raw), size)] + [b""]:
        made = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = made.compress(piece) + made.flush()
        head = b"\x1f\x8b\x08\x04" + bytes(4) + b"\x00\xff\x06\x00BC\x02\x00"
        head += struct.pack("<H", len(body) + 18 + 8 - 1)
        packed += head + body + struct.pack("<II", zlib.crc32(piece), len(piece))
    return packed


BASES = st.text("ACGTNacgtnRM", min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(BASES, min_size=1, max_size=4),
    st.integers(1, 17),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([0, 7, 40]),
    st.integers(1, 9),
    st.data(),
)
def test_any_piece(tmp_path_factory, bases, width, end, block, chunk, data):
    sequences = {f"chr{k + 1}": sequence for k, sequence in enumerate(bases)}
    raw = text_of(sequences, width, end)
    path = tmp_path_factory.mktemp("genome") / ("g.fa.gz" if block else "g.fa")
    path.write_bytes(bgzipped(raw, block) if block else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasta, "_CHUNK", chunk)
        genome = Fasta(path)
        assert genome.lengths == {name[3:]: len(s) for name, s in sequences.items()}
        for name, sequence in sequences.items():
            first = data.draw(st.integers(-2, len(sequence) + 3))
            last = data.draw(st.integers(-2, len(sequence) + 3))
            expected = sequence[max(first - 1, 0) : max(last, 0)].upper()
            assert genome.sequence(name[3:], first, last) == expected
            positions = np.array(data.draw(st.lists(st.integers(-2, 70), max_size=8)), np.int64)
            codes = genome.letters(name[3:], positions)
            assert [chr(code) if code else "" for code in codes] == [
                sequence[p - 1].upper() if 1 <= p <= len(sequence) else "" for p in positions
            ]
        index = path.with_name(f"{path.name}.fai")
        index.write_text(
            "".join(
                "\t".join(map(str, (name, one.length, one.offset, one.line_bases, one.line_bytes)))
                + "\n"
                for name, one in zip(sequences, genome._sequences.values(), strict=True)
            )
        )
        again = Fasta(path)
        assert again._sequences == genome._sequences


def test_the_index_of_samtools(tmp_path):
    """Numbers worked out by hand, as the manual of faidx explains them."""
    path = tmp_path / "g.fa"
    path.write_text(">one\nATGCATGCAT\nGCATGCATGC\nAT\n>two x\nATGC\n\n")
    found = Fasta(path)._sequences
    assert found["one"] == fasta._Sequence(22, 5, 10, 11)
    assert found["two"] == fasta._Sequence(4, 37, 4, 5)


def test_names(tmp_path):
    path = tmp_path / "g.fa"
    path.write_bytes(text_of({"chr01": "AC", "chrX": "GT", "chrM": "AA", "HLA*01": "CC"}, 60))
    genome = Fasta(path)
    assert list(genome.lengths) == ["1", "X", "MT", "HLA*01"] and len(genome) == 4
    assert "X" in genome and "chrX" not in genome and "4 sequences" in repr(genome)
    with pytest.raises(LabelError, match="no sequence '7'; it has 1, X, MT"):
        genome.sequence("7", 1, 2)
    assert is_fasta("a/b.FASTA.gz") and not is_fasta("a.vcf.gz")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"ACGT\n", "no FASTA"),
        (b">\nACGT\n", "has no name"),
        (b">a\nAC\n>a\nAC\n", "that of another"),
        (b">a\nACGT\nAC\nACGT\n", "lines of a differ in length"),
        (b">a\nACGT\nACGTA\n", "lines of a differ in length"),
        (b">a\nACGT\n\nACGT\n", "lines of a differ in length"),
        (gzip.compress(b">a\nACGT\n", mtime=0), "gunzip"),
        (bgzipped(b">a\nACGT\n", 5)[:-40], "cut short"),
    ],
)
def test_what_is_no_fasta(tmp_path, raw, message):
    path = tmp_path / "g.fa"
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match=message):
        Fasta(path)


def test_damage_and_other_indexes(tmp_path):
    path = tmp_path / "g.fa"
    with pytest.raises(FileFormatError, match="no such file"):
        Fasta(path)
    path.write_bytes(text_of({"a": "ACGT" * 9, "b": "AC"}, 10))
    index = tmp_path / "g.fa.fai"
    for text, message in (
        ("", "is empty"),
        ("a\tx\t1\t2\t3\n", "line 1 is not of an index"),
        ("a\t36\t14\t10\t11\nb\t2\t70\t2\t3\n", "is not the index of"),
        ("a\t360\t14\t10\t11\n", "is not the index of"),
    ):
        index.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            Fasta(path)
    index.write_text("a\t40\t14\t10\t12\n")  # lines of other length: found when they are read
    with pytest.raises(FileFormatError, match=r"is not the index of|Make the index again"):
        Fasta(path).sequence("a", 1, 40)
    packed = tmp_path / "g.fa.gz"
    raw = bytearray(bgzipped(text_of({"a": "ACGT" * 9}, 10), 50))
    raw[20] ^= 0xFF
    packed.write_bytes(bytes(raw))
    with pytest.raises(FileFormatError, match="damaged"):
        Fasta(packed).sequence("a", 1, 9)
