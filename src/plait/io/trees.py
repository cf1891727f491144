"""Tree sequences: genotypes of individuals at the mutations of a genealogy, as simulators write."""

import os
import threading
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import row_numbers
from plait.data.genotypes import GenotypeSource, Rows, as_floats
from plait.data.variants import VariantTable
from plait.errors import FileFormatError, InputError
from plait.io.genotype_files import (
    COUNTS,
    MULTIALLELIC,
    HaploidNotice,
    VariantList,
    check_option,
    distinct_samples,
    library,
    require_file,
    swapped,
)

_COMPRESSED = ".tsz"
_EXTRA = "'plait[trees]'"


class TreeSource(GenotypeSource):
    """Hard calls of a tree sequence.

    Parameters
    ----------
    path : path
        A .trees file (tskit), or .tsz (tszip), which is decompressed in memory. ``pip install
        'plait[trees]'`` gives both libraries.
    count : {"ea", "oa"}
        Which allele is counted: the derived one, or the others.
    multiallelic : {"split", "drop"}
        A site with several derived alleles becomes one row for each of them; or it is left out.
    chromosome : str
        What the chromosome is called, which a tree sequence does not say.

    Raises
    ------
    DependencyError
        tskit or tszip is not installed.
    InputError
        There are no individuals, or one of more than two genomes.

    Notes
    -----
    Samples are the individuals with genomes among the samples of the tree sequence, called by
    ``name`` or ``id`` of their metadata where all have one, else ``tsk_0``, ``tsk_1`` ... by their
    number. A genotype is the sum over the genomes of an individual; it is missing where one of them
    is, and the allele of a single genome counts twice. Positions count from 1: that at 0 of the
    tree sequence is 1. Variants are decoded along the genome; going back starts over.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        count: str = "ea",
        multiallelic: str = "split",
        chromosome: str = "1",
    ) -> None:
        check_option("count", count, COUNTS)
        check_option("multiallelic", multiallelic, MULTIALLELIC)
        self.path, self.count = Path(path), count
        self.multiallelic, self.chromosome = multiallelic, chromosome
        require_file(self.path)
        self._trees = _load(self.path)
        people = [person for person in self._trees.individuals() if self._genomes(person)]
        if not people:
            raise InputError(
                f"{self.path} has no individuals with sampled genomes, so that there are no "
                "genotypes; simulate individuals, as msprime.sim_ancestry does."
            )
        genomes = [self._genomes(person) for person in people]
        most = max(map(len, genomes))
        if most > self.ploidy:
            raise InputError(
                f"{self.path}: an individual has {most} genomes; plait takes one or two."
            )
        self.samples = distinct_samples(self.path, _names(people))
        if min(map(len, genomes)) == 1:
            HaploidNotice(self.path).say()
        self._nodes = np.array([node for nodes in genomes for node in nodes])
        stops = np.cumsum([len(nodes) for nodes in genomes])
        self._first, self._last = stops - [len(nodes) for nodes in genomes], stops - 1
        self._list_variants()
        self._lock = threading.Lock()
        self._variant: Any = None
        self._at = -1

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.count, self.multiallelic, self.chromosome)

    @property
    def n_variants(self) -> int:
        """Number of variants M, after sites with several derived alleles are split."""
        return len(self._sites)

    @cached_property
    def variants(self) -> VariantTable:
        """All variants, along the genome."""
        return self._table if self.count == "ea" else swapped(self._table)

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        rows = row_numbers(variants, self.n_variants)
        calls = np.empty((len(rows), self.n_samples), np.int8)
        alleles = self._table.frame["ea"]
        with self._lock:
            for place in np.argsort(self._sites[rows], kind="stable"):
                row = int(rows[place])
                calls[place] = self._copies(int(self._sites[row]), alleles[row])
        if samples is not None:
            calls = calls[:, samples]
        return as_floats(calls, dtype)

    def close(self) -> None:
        """Forget the place in the genealogy."""
        self._variant, self._at = None, -1

    def _genomes(self, person: Any) -> list[int]:
        nodes = self._trees.tables.nodes.flags[person.nodes] & library("tskit").NODE_IS_SAMPLE
        return [int(node) for node in person.nodes[nodes != 0]]

    def _list_variants(self) -> None:
        table, sites = VariantList(), []
        for site in self._trees.sites():
            states = dict.fromkeys(mutation.derived_state for mutation in site.mutations)
            derived = [state for state in states if state != site.ancestral_state] or ["."]
            if len(derived) > 1 and self.multiallelic == "drop":
                continue
            for state in derived:
                sites.append(site.id)
                pos = int(site.position) + 1
                table.add(self.chromosome, pos, ".", site.ancestral_state or ".", state or ".")
        self._table = table.table()
        self._sites = np.array(sites, dtype=np.intp)

    def _copies(self, site: int, allele: str) -> NDArray[np.int8]:
        """Return the copies that individuals have of an allele, or of the others; -1 missing."""
        if self._variant is None:
            self._variant = library("tskit").Variant(self._trees, samples=self._nodes)
        variant = self._variant
        if self._at != site:
            variant.decode(site)
            self._at = site
        named = ["." if state == "" else state for state in variant.alleles]
        number = named.index(allele) if allele in named else len(named)
        states = variant.genotypes
        has = ((states == number) != (self.count == "oa")).astype(np.int8)
        first, last = self._first, self._last  # the same genome where there is one
        copies: NDArray[np.int8] = has[first] + has[last]
        copies[(states[first] < 0) | (states[last] < 0)] = -1
        return copies


def _load(path: Path) -> Any:
    tskit = library("tskit", _EXTRA)
    name, load, refusal = "tskit", tskit.load, tskit.FileFormatError
    if path.suffix == _COMPRESSED:
        tszip = library("tszip", _EXTRA)
        name, load, refusal = "tszip", tszip.decompress, tszip.exceptions.TszipException
    try:
        return load(path)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, refusal) as error:
        raise FileFormatError(
            f"{path} is not a tree sequence that {name} reads ({error})."
        ) from None


def _names(people: list[Any]) -> list[str]:
    """Return what individuals are called by their metadata, else by their numbers."""
    for key in ("name", "id"):
        found = [p.metadata.get(key) if isinstance(p.metadata, dict) else None for p in people]
        if all(name not in (None, "") for name in found):
            return [str(name) for name in found]
    return [f"tsk_{person.id}" for person in people]
