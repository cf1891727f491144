"""How the commands of ``plait sumstats`` read tables."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.inputs import refuse_idle
from plait.errors import FileFormatError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from plait.data.summary_statistics import SummaryStatistics
    from plait.io.eqtl_formats import EqtlFormat
    from plait.io.fasta import Fasta


@dataclass(frozen=True)
class Reading:
    """How tables are read, by the options of a command.

    Attributes
    ----------
    columns, dialect, context : str or None
    build : str or None
        Refused before anything is read where there is no such build.
    variants : Path or None
    allow_standardised : bool
        Refused where no row of what is read has its effect made of z.
    test : str or None
        Which rows, where there is a column of tests; refused where there is none.
    """

    columns: str | None = None
    dialect: str | None = None
    variants: Path | None = None
    build: str | None = None
    context: str | None = None
    allow_standardised: bool = False
    test: str | None = None

    def __post_init__(self) -> None:
        from plait.data.summary_statistics import standard_build

        object.__setattr__(self, "build", standard_build(self.build))

    def eqtl_format(self, file: Path) -> "EqtlFormat | None":
        """Return the format of a table of eQTL results, unless its columns were named."""
        from plait.io.eqtl import find_eqtl_format

        named = self.columns is not None or self.dialect is not None
        return None if named else find_eqtl_format(file)

    def roles(self, file: Path) -> tuple[str, dict[str, str]]:
        """Return the dialect of a table, and which column plays each role."""
        from plait.io.dialects import find_roles
        from plait.io.summary_statistics import header_of

        eqtl = self.eqtl_format(file)
        if eqtl is not None:
            raise FileFormatError(
                f"{file} holds eQTL results (format {eqtl.name}): a row for each gene and variant, "
                "where this takes one for each variant. 'plait sumstats check' says how they are "
                "joined; rows of one gene may be read with --columns."
            )
        given = _pairs(self.columns)
        return find_roles(header_of(file), self.dialect, given, str(file), self.context)

    def table(self, file: Path, trait: str | None = None) -> "SummaryStatistics":
        """Read a table."""
        table = self._table(file, trait)
        self._refuse_idle([table])
        self._refuse_idle_test([self.roles(file)[1]])
        return table

    def _refuse_idle_test(self, roles: Collection[Mapping[str, str]]) -> None:
        has_tests = any("test" in found for found in roles)
        refuse_idle(("test",), not has_tests, "here (no column says which test a row is of)")

    def _refuse_idle(self, tables: Collection["SummaryStatistics"]) -> None:
        refuse_idle(
            ("allow_standardised",),
            not any(table.standardised for table in tables),
            "here (every row has its own effect, or lacks z, a frequency or a sample size)",
        )

    def _table(self, file: Path, trait: str | None) -> "SummaryStatistics":
        from plait.io import read_gwas_ssf, read_summary_statistics

        if self.roles(file)[0] == "gwas-ssf":
            return read_gwas_ssf(file, **self._settings(trait))
        return read_summary_statistics(
            file,
            self.dialect,
            context=self.context,
            allow_standardised=self.allow_standardised,
            **self._settings(trait),
        )

    def tables(self, given: list[str]) -> dict[str, "SummaryStatistics"]:
        """Read ``NAME=FILE``, and all contexts of a table that is given without a name.

        Of a table with several contexts, ``NAME=FILE`` is the one of this name.
        """
        from plait.io import read_summary_contexts

        tables: dict[str, SummaryStatistics] = {}
        roles: list[dict[str, str]] = []
        for text in given:
            name, sign, file = text.partition("=")
            if sign and not (name and file):
                raise OptionError(
                    f"{text!r}: give each table with its name, as height=height.tsv.gz."
                )
            if sign:
                named = self.context is None and name in self.contexts(Path(file))
                reading = replace(self, context=name) if named else self
                found = {name: reading._table(Path(file), name)}
                roles.append(reading.roles(Path(file))[1])
            elif self.contexts(Path(text)):
                found = read_summary_contexts(
                    Path(text),
                    self.dialect,
                    allow_standardised=self.allow_standardised,
                    **self._settings(None),
                )
            else:
                raise OptionError(
                    f"{text!r} holds one context: give each table with its name, as height={text}."
                )
            twice = next((name for name in found if name in tables), None)
            if twice is not None:
                raise OptionError(f"two tables are called {twice!r}.")
            tables |= found
        if len(tables) < 2:
            raise OptionError("there is one table only; two or more are combined.")
        self._refuse_idle(tables.values())
        self._refuse_idle_test(roles)
        return tables

    def contexts(self, file: Path) -> tuple[str, ...]:
        """Return the contexts that a table holds side by side; none where it is of one."""
        from plait.io.dialects import find_contexts
        from plait.io.summary_statistics import header_of

        if self.columns is not None and self.dialect is None:
            return ()
        return find_contexts(header_of(file), self.dialect, str(file))

    def log10p_of_contexts(self, file: Path) -> "NDArray[np.float64] | None":
        """Return log10 of the p-values of all traits in a table of a scan, (M, T); else None.

        Rows of such a table may have been chosen by the p-values of traits that are not read.
        """
        import polars as pl

        from plait.io.dialects import find_roles
        from plait.io.summary_statistics import header_of, read_table

        names, header = self.contexts(file), header_of(file)
        roles = [find_roles(header, self.dialect, None, str(file), name)[1] for name in names]
        if len(names) < 2 or not all("log10p" in found for found in roles):
            return None
        frame = read_table(file, [found["log10p"] for found in roles])
        return frame.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()

    def _settings(self, trait: str | None) -> dict[str, Any]:
        from plait.io import read_variants

        settings: dict[str, Any] = {
            "columns": _pairs(self.columns),
            "variants": None if self.variants is None else read_variants(self.variants),
        }
        # What was not given here is left to the metadata beside the table.
        settings |= {} if self.build is None else {"build": self.build}
        settings |= {} if self.test is None else {"test": self.test}
        return settings | ({} if trait is None else {"trait": trait})


def is_fasta(file: Path) -> bool:
    """Tell by its name whether a file is a genome."""
    from plait.io import fasta

    return fasta.is_fasta(file)


def open_genome(file: Path | None) -> "Fasta | None":
    """Open a genome, where there is one."""
    from plait.io.fasta import Fasta

    return None if file is None else Fasta(file)


def read_reference(file: Path) -> Any:
    """Return a genome, the variants of a .bim, .pvar or VCF, or a table of summary statistics."""
    from plait.io import summary_sources

    return summary_sources.read_reference(file)


def _pairs(columns: str | None) -> dict[str, str] | None:
    if columns is None:
        return None
    pairs = [part.partition("=") for part in columns.split(",") if part.strip()]
    wrong = next((role for role, sign, name in pairs if not (sign and name.strip())), None)
    if wrong is not None or not pairs:
        raise OptionError(f"--columns has {wrong or columns!r}; expected ea=A1,oa=A2,beta=b,se=se.")
    return {role.strip(): name.strip() for role, _, name in pairs}


def read_metadata(file: Path, metadata: Path | None, build: str | None) -> dict[str, Any]:
    """Return the metadata given, or those beside the table, without what is found out anew."""
    from plait.io.gwas_ssf_metadata import metadata_path
    from plait.io.metadata_yaml import read_yaml_file

    place = metadata_path(file) if metadata is None else metadata
    if metadata is None and not place.is_file():
        return {} if build is None else {"genome_assembly": build}
    given = read_yaml_file(place)
    for key in ("is_sorted", "date_metadata_last_modified"):
        given.pop(key, None)
    return given if build is None else given | {"genome_assembly": build}
