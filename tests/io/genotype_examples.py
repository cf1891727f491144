"""The same small genotypes in every format, written here by other means than plait's readers."""

import numpy as np

from plait.data.variants import VariantTable

SAMPLES = ["ann", "bob", "cy", "dee", "eve", "flo", "gus"]
CHROM = ["1", "1", "1", "2", "2", "X"]
POS = [100, 250, 251, 80, 1000, 5]
IDS = ["rs1", "rs2", "rs3", "rs4", "rs5", "rs6"]
OA = ["A", "C", "G", "AT", "C", "G"]
EA = ["G", "T", "C", "A", "CGG", "T"]
CALLS = np.array(
    [
        [0, 1, 2, -1, 0, 1, 2],
        [2, 2, 2, 2, 2, 2, 2],
        [0, 0, 0, 0, 0, 0, 0],
        [-1, -1, 1, 1, 0, 0, 2],
        [1, 0, 1, 0, 1, 0, 1],
        [2, 1, 0, -1, 2, 1, 0],
    ],
    dtype=np.int8,
)
VARIANTS = VariantTable.of(CHROM, POS, OA, EA, IDS)
VCF_HEADER = (
    "##fileformat=VCFv4.2\n"
    '##FILTER=<ID=PASS,Description="All filters passed">\n'
    "##contig=<ID=1>\n##contig=<ID=2>\n##contig=<ID=X>\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    '##FORMAT=<ID=DS,Number=A,Type=Float,Description="dosage">\n'
    '##FORMAT=<ID=GP,Number=G,Type=Float,Description="probabilities">\n'
)
VCF_COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\t"
_GT = {-1: "./.", 0: "0/0", 1: "0|1", 2: "1/1"}


def floats(calls=CALLS):
    return np.where(calls < 0, np.nan, calls.astype(float))


def vcf_text(rows, samples=SAMPLES):
    """Each row: chrom, pos, id, ref, alt, format, one text per sample."""
    lines = [
        "\t".join([c, str(p), i, r, a, ".", ".", ".", f, *cells]) + "\n"
        for c, p, i, r, a, f, cells in rows
    ]
    return VCF_HEADER + VCF_COLUMNS + "\t".join(samples) + "\n" + "".join(lines)


def write_vcf(path):
    rows = [
        (c, p, i, r, a, "GT", [_GT[int(g)] for g in calls])
        for c, p, i, r, a, calls in zip(CHROM, POS, IDS, OA, EA, CALLS, strict=True)
    ]
    path.write_text(vcf_text(rows))
    return path


def write_pgen(path, calls=CALLS):
    import pgenlib

    with pgenlib.PgenWriter(
        str(path).encode(), calls.shape[1], variant_ct=len(calls), nonref_flags=False
    ) as writer:
        for row in calls:
            writer.append_biallelic(np.where(row < 0, -9, row).astype(np.int8))
    write_pgen_tables(path, zip(CHROM, POS, IDS, OA, EA, strict=True))
    return path


def write_pgen_tables(path, variants, samples=SAMPLES):
    lines = ["\t".join(map(str, variant)) for variant in variants]
    path.with_suffix(".pvar").write_text(
        "\n".join(["##made=here", "#CHROM\tPOS\tID\tREF\tALT", *lines]) + "\n"
    )
    path.with_suffix(".psam").write_text(
        "#FID\tIID\tSEX\n" + "".join(f"f\t{name}\tNA\n" for name in samples)
    )


def write_bgen(path, calls=CALLS, samples=SAMPLES):
    from bgen import BgenWriter

    with BgenWriter(str(path), calls.shape[1], samples=samples or []) as writer:
        for row, *labels in zip(calls, CHROM, POS, IDS, OA, EA, strict=True):
            chrom, pos, name, oa, ea = labels
            probabilities = np.eye(3)[np.maximum(row, 0)]
            probabilities[row < 0] = np.nan
            writer.add_variant(name, name, chrom, pos, [oa, ea], probabilities, bit_depth=8)
    return path


def write_csv(path):
    lines = [",".join(["id", *IDS])]
    for column, name in enumerate(SAMPLES):
        values = ["NA" if call < 0 else str(call) for call in CALLS[:, column]]
        lines.append(",".join([name, *values]))
    path.write_text("\n".join(lines) + "\n")
    map_lines = [",".join(map(str, row)) for row in zip(IDS, CHROM, POS, OA, EA, strict=True)]
    path.with_name("map.csv").write_text("\n".join(["SNP,CHROM,POS,REF,ALT", *map_lines]) + "\n")
    return path
