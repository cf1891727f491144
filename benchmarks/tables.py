"""Write the tables from the stored results: ``python benchmarks/tables.py``.

All of them into ``benchmarks/README.md``, and a summary into the project's ``README.md``.
"""

import json

from common import HERE, RESULTS, table

RESULTS_MARKS = "<!-- results -->", "<!-- end of results -->"
SUMMARY_MARKS = "<!-- performance -->", "<!-- end of performance -->"
SUMMARY_COLUMNS = {
    "what": "whole fit and posterior, J x R",
    "seconds": "plait s",
    "r": "mashr s",
    "r_ratio": "ratio",
    "peer_recorded": "Python peer s",
    "peer_recorded_ratio": "ratio",
    "reference": "NumPy s",
    "reference_ratio": "ratio",
}


def section(path):
    """Return the Markdown of one result file."""
    document = json.loads(path.read_text())
    machine, versions = document["machine"], document["versions"]
    lines = [f"### {document['benchmark']}", ""]
    stamp = f"{document['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, load "
    stamp += f"{machine['load']:.1f} at the end; " + ", ".join(
        f"{name} {number}" for name, number in versions.items()
    )
    lines += [stamp, ""]
    for columns in document["columns"]:
        lines += [*table(columns, document["rows"]), ""]
    lines += [f"- {note}" for note in document["notes"]]
    return [*lines, ""] if document["notes"] else lines


def load(name):
    """Return the rows of a result."""
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def summary():
    """Return the Markdown of the summary."""
    rows = [row | {"what": row["case"]} for row in load("mash_fit")]
    fits = table(SUMMARY_COLUMNS, rows)
    learned = {row["case"]: row for row in load("mash_deconvolution")}
    ratios = [row["r_ratio"] for row in learned.values()]
    applied = {row["case"]: row for row in load("mash_apply")}
    per_million = {
        (errors, matrices): applied[f"20, {errors}, {matrices}"]["per_million"]
        for errors in ("common", "varying")
        for matrices in ("canonical", "full rank")
    }
    growth = load("mash_growth")
    exponents = {(row["route"], row["width"]): row.get("exponent") for row in growth}
    stored = [row["peak_mb"] for row in growth if row["route"] != "in memory"]
    scale = {row["run"]: row for row in load("mash_scale")}
    whole, resumed = scale["whole"], scale["the same again"]
    lines = [
        *fits,
        "",
        f"- Learning patterns (extreme deconvolution, 20 iterations): {min(ratios):.0f} to "
        f"{max(ratios):.0f} times as fast as mashr.",
        "- A fixed prior of 30 components on a million effects in 20 conditions: "
        f"{per_million['common', 'canonical']:.1f} s with common errors and "
        f"{per_million['varying', 'canonical']:.1f} s with varying ones; "
        f"{per_million['common', 'full rank']:.1f} and {per_million['varying', 'full rank']:.0f} s "
        "where all components are of full rank.",
        f"- Time grows as J to the power {exponents['in memory', 20]:.2f} where all effects are "
        f"fitted (10,000 to 1,000,000, R = 20), {exponents['store, 600 MB', 20]:.2f} from store to "
        f"store (100,000 to 3,000,000), there within {max(stored) / 1000:.2f} GB.",
        f"- {whole['effects']:,} x 20 z-scores from store to store: {whole['seconds']:.0f} s, peak "
        f"memory {whole['peak_mb'] / 1000:.1f} GB; killed at half, the same command takes another "
        f"{resumed['seconds']:.0f} s and writes the same bytes.",
        *scans(),
    ]
    return "\n".join(lines)


def scans():
    """Return what there is to say about association scans."""
    linear = {
        (row["program"], row["traits"]): row
        for row in load("gwas_scan")
        if row["threads"] == 1 and row["variants"] == 100_000
    }
    mixed = {(row["what"], row["program"], row["traits"]): row["cpu"] for row in load("gwas_mixed")}
    ratio = {key: row["ratio"] for key, row in linear.items() if "ratio" in row}
    whole = "mixed scan, relationships included"
    times = [mixed[whole, program, n] for n in (1, 10) for program in ("plait", "panicle")]
    return [
        "- Linear scan of 2,000 samples, from the .bed to tables and pictures, per variant and CPU "
        f"second: {ratio['plait, mean', 1]:.0f} times as fast as PLINK 2 with 1 trait and "
        f"{ratio['plait, mean', 10]:.0f} times with 10 "
        f"({ratio['plait, drop', 1]:.0f} and {ratio['plait, drop', 10]:.0f} with complete cases).",
        "- Mixed scan without each chromosome, 2,000 samples, 100,000 variants, relationships "
        f"included: {times[0]:.1f} CPU s for 1 trait and {times[2]:.1f} for 10; PANICLE "
        f"{times[1]:.1f} and {times[3]:.1f}.",
    ]


def put(path, marks, body):
    """Replace what stands between two marks of a file."""
    start, end = marks
    before, rest = path.read_text().split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}\n\n{body}\n\n{end}{after}")


def main():
    paths = sorted(p for p in RESULTS.glob("*.json") if not p.stem.endswith("_small"))
    body = "\n".join(line for path in paths for line in section(path))
    put(HERE / "README.md", RESULTS_MARKS, body.rstrip())
    put(HERE.parent / "README.md", SUMMARY_MARKS, summary())


if __name__ == "__main__":
    main()
