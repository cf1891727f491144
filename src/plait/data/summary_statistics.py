"""Summary statistics: what an association scan found for each variant, one row each."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.data.summary_derivations import HELPERS, derive
from plait.errors import InputError, LabelError, NotAvailableError, OptionError, ShapeError
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame, Series

Array = NDArray[np.float64]
_log = logging.getLogger("plait.io")

TEXTS = ("chrom", "ea", "oa", "id", "rsid", "trait", "test")
FLOATS = ("eaf", "beta", "se", "z", "log10p", "n", "info")
COLUMNS = (
    "chrom", "pos", "ea", "oa", "eaf", "beta", "se", "z", "log10p", "n", "info", "id", "rsid",
    "trait", "test",
)  # fmt: skip
"""The columns of every table, in this order."""

HUMAN_BUILDS = {
    "NCBI34": ("hg16", "b34"),
    "NCBI35": ("hg17", "b35"),
    "NCBI36": ("hg18", "b36", "36"),
    "GRCh37": ("hg19", "b37", "37", "19", "humang1kv37"),
    "GRCh38": ("hg38", "b38", "38"),
}
"""Builds of the human genome, and what else they are called: small letters, no separators."""
_LIKE_HUMAN = re.compile(r"(hg|grch|ncbi)\d.*|b(uild)?3\d|\d+")
"""What no other species' assembly is called; B73, of maize, is none of these."""
_NOT_STATED = ("", "nr", "na", "unknown")
_BAD_SE = ("drop", "error")
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class SummaryStatistics:
    """Estimates of one scan, one row per variant.

    Make one with `from_frame`, `plait.io.read_summary_statistics` or `plait.io.read_gwas_ssf`,
    which derive what is missing; the constructor only checks.

    Parameters
    ----------
    frame : polars.DataFrame
        The columns `COLUMNS`: ``chrom`` (text), ``pos`` (from 1), ``ea`` and ``oa`` (effect and
        other allele, capital letters), ``eaf`` (frequency of ``ea``), ``beta`` (of one more copy
        of ``ea``), ``se``, ``z``, ``log10p`` (log10 of p, at most 0), ``n``, ``info``, ``id``,
        ``rsid``, ``trait`` and ``test``. Null in text and ``pos``, NaN in floats, where missing.
    build : str, optional
        Genome build of the positions, as ``"GRCh38"``; see `standard_build`.
    counts : mapping of str to int
        How many rows were left out, by why.
    file : str, optional
        Where it was read from. Contexts of one file stand in the same rows: their alleles are
        those of one strand.
    standardised : int
        Rows whose effect was made of z, frequency and n, on a standardised phenotype.

    Raises
    ------
    ShapeError
        The columns are others.
    InputError
        A number is out of its range; the message names the rows.
    OptionError
        The build is called like one of the human genome, and there is none of this name.
    """

    frame: "DataFrame"
    build: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    file: str | None = None
    standardised: int = 0

    def __post_init__(self) -> None:
        import polars as pl

        if tuple(self.frame.columns) != COLUMNS:
            raise ShapeError(
                f"summary statistics have the columns {COLUMNS}, not {self.frame.columns}; "
                "SummaryStatistics.from_frame completes a table."
            )
        dtypes = dict.fromkeys(TEXTS, pl.String) | dict.fromkeys(FLOATS, pl.Float64)
        wrong = {
            name: dtype
            for name, dtype in self.frame.schema.items()
            if dtype != {"pos": pl.Int64, **dtypes}[name]
        }
        if wrong:
            raise ShapeError(f"columns of summary statistics have other types: {wrong}.")
        object.__setattr__(self, "counts", dict(self.counts))
        object.__setattr__(self, "build", standard_build(self.build))
        self._check_ranges()

    def _check_ranges(self) -> None:
        import polars as pl

        def complain(bad: "pl.Expr", what: str) -> None:
            mask = self.frame.select(bad.fill_null(False)).to_series()
            if mask.any():
                raise InputError(f"{what} in {described(self.frame, mask.to_numpy())}.")

        number = {name: pl.col(name).fill_nan(None) for name in FLOATS}
        complain(pl.col("pos") < 0, "a position is negative")
        complain((number["eaf"] < 0) | (number["eaf"] > 1), "a frequency is outside 0 to 1")
        complain(number["beta"].is_infinite(), "an effect is infinite")
        complain(number["z"].is_infinite(), "z is infinite")
        complain((number["se"] <= 0) | number["se"].is_infinite(), "a standard error is not > 0")
        complain(number["log10p"] > 0, "log10 of p is positive")
        complain(number["n"] < 0, "a sample size is negative")

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        build: str | None = None,
        trait: str | None = None,
        file: str | None = None,
        bad_se: str = "drop",
        allow_standardised: bool = False,
    ) -> Self:
        """Make a table from columns by the house's names, and derive what is missing.

        Parameters
        ----------
        frame : polars.DataFrame
            Any of `COLUMNS` and of ``p``, ``odds_ratio``, ``hazard_ratio``, ``ci_lower``,
            ``ci_upper`` and ``t``. ``p`` may be text, so that ``1.2e-412`` keeps its size.
        build : str, optional
            See `standard_build`.
        trait : str, optional
            Name of the trait or context, where the table does not say.
        file : str, optional
            Where the columns were read from.
        bad_se : {"drop", "error"}
            What happens to rows without a usable standard error. Rows without any estimate (the
            variant was not tested) are left out in any case.
        allow_standardised : bool
            Whether effects on a standardised phenotype may be made of z, frequency and n.

        Raises
        ------
        ShapeError
            There is neither an effect nor z, or an unknown column.
        InputError
            All rows are unusable, or some and ``bad_se="error"``.
        """
        if bad_se not in _BAD_SE:
            raise OptionError(f"bad_se is {bad_se!r}; give 'drop' or 'error'.")
        known = {*COLUMNS, *HELPERS, "p"}
        unknown = [name for name in frame.columns if name not in known]
        if unknown:
            raise ShapeError(f"unknown columns {unknown}; known are {sorted(known)}.")
        if not {"beta", "odds_ratio", "hazard_ratio", "z"} & set(frame.columns):
            raise ShapeError("a table needs an effect (beta, odds_ratio, hazard_ratio) or z.")
        table, counts, made = _derived(frame, trait, allow_standardised)
        table, counts = _without_bad_rows(table, counts, bad_se)
        return cls(table, build, counts, file, made)

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        parts = [f"{len(self):,} variants"]
        traits = self.frame["trait"].drop_nulls().unique()
        if len(traits) == 1:
            parts.append(f"trait {traits[0]!r}")
        if self.build is not None:
            parts.append(self.build)
        if not self.has_effects:
            parts.append("z only")
        return f"SummaryStatistics({', '.join(parts)})"

    def column(self, name: str) -> NDArray[Any]:
        """Return a numeric column as an array (M,)."""
        return self.frame[name].to_numpy()

    @property
    def p(self) -> Array:
        """p-values (M,); 0 where a double cannot hold them: use ``log10p`` there."""
        values: Array = 10.0 ** self.column("log10p")
        return values

    @property
    def has_effects(self) -> bool:
        """Whether there are effects with standard errors, not only z."""
        return not len(self) or not self.frame["se"].is_nan().all()

    @cached_property
    def keys(self) -> "Series":
        """``chrom:pos:oa:ea``, what identifies a variant; the id where a part of it is missing."""
        import polars as pl

        joined = pl.concat_str("chrom", "pos", "oa", "ea", separator=":")
        return self.frame.select(pl.coalesce(joined, "id", "rsid").alias("key"))["key"]

    def select(self, rows: NDArray[Any]) -> Self:
        """Return some rows, by a mask or by positions."""
        rows = np.asarray(rows)
        kept = self.frame.filter(rows) if rows.dtype.kind == "b" else self.frame[rows]
        return replace(self, frame=kept)

    def to_effects(self, context: str | None = None, scale: str = "beta") -> Effects:
        """Return the effects of this one context.

        Parameters
        ----------
        context : str, optional
            Its name; default the trait.
        scale : {"beta", "z"}
            Effects and their standard errors, or z with standard error 1.

        Raises
        ------
        NotAvailableError
            The table has z only and effects were asked for, or it has no name.
        LabelError
            A variant occurs twice, or has neither a position nor an id.
        """
        name = context or self._only_trait()
        bhat, shat = self.estimates(scale)
        keys = self.keys
        if keys.has_nulls():
            raise LabelError(
                f"{keys.null_count():,} variants have neither position and alleles nor an id."
            )
        if keys.n_unique() < len(keys):
            raise LabelError(
                f"{len(keys) - keys.n_unique():,} rows repeat a variant (first: "
                f"{keys.filter(keys.is_duplicated())[0]!r}); harmonise the table first, which "
                "keeps the row of the largest sample."
            )
        return Effects(
            bhat[:, None],
            shat[:, None],
            effects=np.array(keys.to_list(), dtype=np.str_),
            contexts=(name,),
            provenance=Provenance("SummaryStatistics.to_effects", {"scale": scale}),
        )

    def estimates(self, scale: str = "beta") -> tuple[Array, Array]:
        """Return estimates and standard errors (M,), ``inf`` and 0 where there are none."""
        if scale not in ("beta", "z"):
            raise OptionError(f"scale is {scale!r}; give 'beta' or 'z'.")
        if scale == "beta" and not self.has_effects:
            traits = self.frame["trait"].drop_nulls().unique()
            table = f"the table of {traits[0]!r}" if len(traits) == 1 else "this table"
            raise NotAvailableError(
                f"{table} has z and no effects. Use scale='z', or read it with "
                "allow_standardised=True, which needs frequencies and sample sizes."
            )
        bhat = self.column("beta" if scale == "beta" else "z")
        shat = self.column("se") if scale == "beta" else np.ones(len(self))
        missing = np.isnan(bhat) | np.isnan(shat)
        return np.where(missing, 0.0, bhat), np.where(missing, np.inf, shat)

    def _only_trait(self) -> str:
        traits = self.frame["trait"].drop_nulls().unique().to_list()
        if len(traits) != 1:
            raise NotAvailableError(
                f"the table names {len(traits)} traits; give the name of the context."
            )
        return str(traits[0])


def standard_build(build: str | None, what: str = "build") -> str | None:
    """Return the one name of a genome build.

    Parameters
    ----------
    build : str or None
        A build of the human genome by any of its names, with or without a patch and in any case
        (``"hg19"``, ``"b37"``, ``"GRCh37.p13"``), or the name of another assembly, which is
        returned as it is (``"GRCm39"``, ``"T2T-CHM13"``).
    what : str
        What it is called where it stands, for messages.

    Returns
    -------
    str or None
        None where none is stated: ``"NR"`` (of GWAS-SSF), ``"NA"``, ``"unknown"`` and nothing.

    Raises
    ------
    OptionError
        It is called like a build of the human genome, and there is none of this name.
    """
    if build is None or (given := str(build).strip()).lower() in _NOT_STATED:
        return None
    bare = re.sub(r"\.?p\d+$", "", re.sub(r"[\s_-]", "", given.lower()))
    bare = re.sub(r"^build(?=\d)", "b", bare)
    for name, others in HUMAN_BUILDS.items():
        if bare == name.lower() or bare in others:
            return name
    if _LIKE_HUMAN.fullmatch(bare):
        raise OptionError(
            f"{what} is {given!r}, and the human genome has no such build. Expected GRCh38 (hg38, "
            "b38), GRCh37 (hg19, b37), NCBI36 (hg18, b36), or of another species the name of its "
            "assembly, as GRCm39."
        )
    return given


def described(frame: "DataFrame", mask: NDArray[np.bool_]) -> str:
    """Say how many rows a mask takes and name the first of them."""
    import polars as pl

    names = [name for name in ("chrom", "pos", "oa", "ea", "id") if name in frame.columns]
    rows = frame.select(names).head(0) if not names else frame.select(names).filter(mask)
    labels = []
    for row in rows.head(_SHOWN).with_columns(pl.all().cast(pl.String)).iter_rows(named=True):
        key = ":".join(value for name, value in row.items() if name != "id" and value is not None)
        labels.append(key or row.get("id") or "unnamed")
    count = int(mask.sum())
    more = ", ..." if count > len(labels) else ""
    return f"{count:,} rows ({', '.join(labels)}{more})"


def _derived(
    frame: "DataFrame", trait: str | None, allow_standardised: bool
) -> tuple["DataFrame", dict[str, int], int]:
    """Return the table with all columns, counts of impossible ratios, and of effects made of z."""
    import polars as pl

    from plait.data.p_values import log10_of_text

    counts: dict[str, int] = {}
    ratios = [name for name in ("odds_ratio", "hazard_ratio") if name in frame.columns]
    for name in ratios:
        bad = (frame[name].cast(pl.Float64) <= 0).fill_null(False).to_numpy()
        if bad.any():
            counts["bad_ratio"] = counts.get("bad_ratio", 0) + int(bad.sum())
            _log.warning("%s is not positive in %s; left out", name, described(frame, bad))
            frame = frame.filter(~bad)
    given: dict[str, Array] = {
        name: frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for name in (*FLOATS, *HELPERS)
        if name in frame.columns
    }
    if "p" in frame.columns:
        logs = _checked_p(frame, log10_of_text(frame["p"]))
        stated = given.get("log10p")
        given["log10p"] = logs if stated is None else np.where(np.isnan(stated), logs, stated)
    nothing = np.full(frame.height, np.nan)
    stated_effects = [given[name] for name in ("beta", *ratios) if name in given]
    given |= derive(given, allow_standardised) if frame.height else {}
    bare = np.logical_and.reduce([np.ones(frame.height, bool), *map(np.isnan, stated_effects)])
    made = int((bare & np.isfinite(given.get("beta", nothing))).sum())
    columns: dict[str, Any] = {name: given.get(name, nothing) for name in FLOATS}
    for text in TEXTS:
        values = frame[text].cast(pl.String) if text in frame.columns else None
        if values is None:
            values = pl.Series(text, [None], dtype=pl.String).new_from_index(0, frame.height)
        columns[text] = values.str.to_uppercase() if text in ("ea", "oa") else values
    if trait is not None:
        columns["trait"] = columns["trait"].fill_null(trait)
    no_position = pl.Series("pos", [None], dtype=pl.Int64).new_from_index(0, frame.height)
    columns["pos"] = frame["pos"].cast(pl.Int64) if "pos" in frame.columns else no_position
    return pl.DataFrame({name: columns[name] for name in COLUMNS}), counts, made


def _checked_p(frame: "DataFrame", logs: Array) -> Array:
    """Return log10 of p with what is no p-value missing, which is logged."""
    import polars as pl

    numbers = frame["p"].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    outside = (numbers > 1) | (numbers < 0)
    zero = (numbers == 0) & np.isnan(logs)
    for mask, what in ((outside, "p is outside 0 to 1"), (zero, "p is written as 0")):
        if mask.any():
            _log.warning("%s in %s; taken from z where possible", what, described(frame, mask))
    return np.where(outside, np.nan, logs)


def _without_bad_rows(
    table: "DataFrame", counts: dict[str, int], bad_se: str
) -> tuple["DataFrame", dict[str, int]]:
    """Leave out rows that hold no estimate with a usable error."""
    se, beta, z = (table[name].to_numpy() for name in ("se", "beta", "z"))
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(se) & (se > 0) & np.isfinite(beta) & ~np.isinf(z)
    if not usable.any() and np.isnan(beta).all():
        usable = np.isfinite(z)  # a table of z
    absent = np.isnan(beta) & np.isnan(z)
    if usable.any() and absent.any():
        _log.info("no estimate in %s; left out", described(table, absent))
        counts = {**counts, "no_estimate": int(absent.sum())}
        table, usable = table.filter(~absent), usable[~absent]
    bad = ~usable
    if not bad.any():
        return table, counts
    message = f"no usable standard error (zero, negative or missing) in {described(table, bad)}"
    if bad_se == "error" or not usable.any():
        raise InputError(f"{message}.")
    _log.warning("%s; left out", message)
    return table.filter(usable), {**counts, "bad_se": int(bad.sum())}
