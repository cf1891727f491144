"""One run of a scan, in a process of its own: ``gwas_peer.py PROGRAM TASK FOLDER TRAITS``.

PROGRAM is panicle or plait, in an environment that has it. Tasks that end with "in memory" or "from
the file" are warmed up on a small study, and timed without or with reading the genotypes; of others
the whole process is. Writes ``measured.json`` into the folder.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import common
import numpy as np

FROM_FILE = "linear from the file"
WARM_UP = "warm"
"""The folder beside the study that has the small one."""


class Panicle:
    """Genotypes are an int8 array (samples, variants), missing ones filled when it is loaded."""

    def __init__(self, folder, traits):
        from panicle.data.load_genotype_plink import load_genotype_plink
        from panicle.utils.data_types import GenotypeMap, GenotypeMatrix

        for path in folder.glob("*.panicle.*"):
            path.unlink()
        values, _, places = load_genotype_plink(str(folder / "g"), force_recache=True)
        self.genotypes = GenotypeMatrix(np.asarray(values), is_imputed=True)
        self.places = places if isinstance(places, GenotypeMap) else GenotypeMap(places)
        self.traits = self._numbers(folder / f"y{traits}.tsv")
        self.covariates = self._numbers(folder / "c.tsv")

    @classmethod
    def read_and_scan(cls, folder, traits):
        """Load the genotypes and regress all traits."""
        return cls(folder, traits).linear()

    @staticmethod
    def _numbers(path):
        table = np.loadtxt(path, dtype=str, delimiter="\t", comments=None)
        return table[1:, 1:].astype(float)

    def mixed(self):
        """Relationships without each chromosome, scan, small p-values refined."""
        from panicle.association.mlm_loco import PANICLE_MLM_LOCO_MULTI

        found = PANICLE_MLM_LOCO_MULTI(
            self.traits, self.genotypes, self.places, CV=self.covariates, cpu=1, verbose=False
        )
        return {"tested": sum(int(np.isfinite(one.pvalues).sum()) for one in found.values())}

    def linear(self):
        """Regressions of all traits at once."""
        from panicle import PANICLE_GLM_MULTI

        found = PANICLE_GLM_MULTI(
            self.traits, self.genotypes, CV=self.covariates, cpu=1, verbose=False
        )
        return {"tested": sum(int(np.isfinite(one.pvalues).sum()) for one in found.values())}


class Plait:
    """Genotypes stay in the file, but for the linear scan in memory: there, they are packed."""

    def __init__(self, folder, traits):
        from plait.gwas.design import make_designs
        from plait.io.genotypes import open_genotypes
        from plait.io.phenotypes import read_covariates, read_phenotypes

        self.genotypes = open_genotypes(folder / "g.bed")
        self.traits = read_phenotypes(folder / f"y{traits}.tsv")
        self.covariates = read_covariates(folder / "c.tsv")
        everyone = np.arange(self.genotypes.n_samples)
        self.designs = make_designs(self.traits, self.covariates, everyone)
        self.packed = self.genotypes.read_packed(slice(0, self.genotypes.n_variants))

    @staticmethod
    def read_and_scan(folder, traits):
        """Regress all traits, genotypes read block by block."""
        from plait.gwas import scan

        tables = folder / f"y{traits}.tsv", folder / "c.tsv"
        found = scan(folder / "g.bed", *tables, threads=1)
        return {"tested": int(np.isfinite(found.beta).sum())}

    def mixed(self):
        """Relationships without each chromosome, scan, small p-values refined."""
        from plait.gwas import scan

        found = scan(self.genotypes, self.traits, self.covariates, model="mixed", threads=1)
        return {"tested": int(np.isfinite(found.beta).sum())}

    def linear(self):
        """Count, multiply and test the packed genotypes, block by block."""
        from plait.data.genotype_blocks import CallBlock
        from plait.gwas.linear import LinearScan

        (group,) = LinearScan(self.genotypes, self.designs, len(self.traits.names)).groups
        size, tested = self.genotypes.block_size(), 0
        for start in range(0, len(self.packed), size):
            part = self.packed[start : start + size]
            found = group.run(CallBlock(part, self.genotypes.n_samples, start))
            tested += int(np.isfinite(found.beta).sum())
        return {"tested": tested}

    def parts(self):
        """Return the CPU seconds of the parts of the mixed scan, and the error it measured."""
        from plait.gwas import VariantFilter, relationship_matrix
        from plait.gwas.mixed import EXACT_BELOW, MixedModel

        relationships = common.timed(lambda: relationship_matrix(self.genotypes, threads=1))[2]
        given = self.genotypes, self.designs, VariantFilter(), True, EXACT_BELOW, None, 1
        model, _, preparation = common.timed(lambda: MixedModel(*given))
        preparation -= relationships
        scanning = 0.0
        for runs, make in model.passes():
            work, _, cpu = common.timed(make)
            preparation += cpu
            scanning += common.timed(lambda w=work, r=runs: [self._scanned(w, run) for run in r])[2]
        return {
            "relationships": relationships,
            "preparation": preparation,
            "scanning": scanning,
            "leading": max(-1 if c["leading"] is None else c["leading"] for c in model.checks),
            "error": max(c.get("error", 0.0) for c in model.checks),
            "worst": max(c.get("worst", 0.0) for c in model.checks),
        }

    def _scanned(self, work, run):
        size = self.genotypes.block_size()
        for start in range(run.start, run.stop, size):
            work.run(slice(start, min(start + size, run.stop)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=("panicle", "plait"))
    parser.add_argument("task")
    parser.add_argument("folder", type=Path)
    parser.add_argument("traits", type=int)
    options = parser.parse_args()
    side = {"panicle": Panicle, "plait": Plait}[options.program]
    small = options.folder.parent / WARM_UP
    if options.task == FROM_FILE:
        side.read_and_scan(small, options.traits)
        work = partial(side.read_and_scan, options.folder, options.traits)
    else:
        name = options.task.removesuffix(" in memory")
        if name != options.task:
            getattr(side(small, options.traits), name)()
        work = getattr(side(options.folder, options.traits), name)
    found, seconds, cpu = common.timed(work)
    report = {"cpu": cpu, "seconds": seconds, "peak_mb": round(common.peak_bytes() / 1e6)} | found
    (options.folder / "measured.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
