"""Write the tables of README.md from the stored results: ``python benchmarks/tables.py``."""

import json

from common import HERE, RESULTS, table

START, END = "<!-- results -->", "<!-- end of results -->"


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


def main():
    readme = HERE / "README.md"
    before, rest = readme.read_text().split(START)
    after = rest.split(END)[1]
    paths = sorted(p for p in RESULTS.glob("*.json") if not p.stem.endswith("_small"))
    body = "\n".join(line for path in paths for line in section(path))
    readme.write_text(f"{before}{START}\n\n{body}\n{END}{after}")


if __name__ == "__main__":
    main()
