"""What tools of eQTL mapping call their columns.

A format is *confirmed* when its reading was tried on a file that the tool made, or on published
results. An unconfirmed one is never applied silently: it must be asked for by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class EqtlFormat:
    """The columns of one tool's output.

    Attributes
    ----------
    name : str
    roles : mapping of role to column
        For files without header, the columns are called by their names here.
    columns : tuple of str
        The columns that tell the format; of a file without header, all in their order.
    header : bool
    confirmed : str
        On what the format was confirmed; empty: only documented.
    """

    name: str
    roles: Mapping[str, str]
    columns: tuple[str, ...]
    header: bool = True
    confirmed: str = ""


def _roles(names: str) -> dict[str, str]:
    return dict(part.split("=") for part in names.split())


_TENSORQTL = "files made by running tensorQTL 1.0.10"
_NOMINAL = _roles("gene=phenotype_id variant=variant_id beta=slope se=slope_se p=pval_nominal")
_QTLTOOLS = (
    "phe_id", "phe_chr", "phe_from", "phe_to", "phe_strd", "n_var_in_cis", "dist_phe_var",
    "var_id", "var_chr", "var_from", "var_to", "nom_pval", "r_squared", "slope", "slope_se",
    "best_hit",
)  # fmt: skip
_QTLTOOLS_ROLES = _roles("gene=phe_id variant=var_id beta=slope se=slope_se p=nom_pval")
_FASTQTL_7 = (
    "gene", "variant", "distance", "ma_samples", "ma_count", "maf", "pval", "slope", "slope_se",
)  # fmt: skip

FORMATS = (
    EqtlFormat(
        "tensorqtl",
        _NOMINAL,
        ("phenotype_id", "variant_id", "pval_nominal", "slope", "slope_se"),
        confirmed=f"{_TENSORQTL}: nominal and permutation passes",
    ),
    EqtlFormat(
        "tensorqtl-interaction",
        _roles("gene=phenotype_id variant=variant_id beta=b_gi se=b_gi_se p=pval_gi"),
        ("phenotype_id", "variant_id", "pval_gi", "b_gi", "b_gi_se"),
        confirmed=_TENSORQTL,
    ),
    EqtlFormat(
        "tensorqtl-trans",
        _roles("gene=phenotype_id variant=variant_id beta=b se=b_se p=pval"),
        ("variant_id", "phenotype_id", "pval", "b", "b_se"),
        confirmed=_TENSORQTL,
    ),
    EqtlFormat(
        "gtex",
        _roles("gene=gene_id variant=variant_id beta=slope se=slope_se p=pval_nominal"),
        ("gene_id", "variant_id", "pval_nominal", "slope", "slope_se"),
        confirmed="a FastQTL table of two tissues",
    ),
    EqtlFormat(
        "matrixeqtl",
        _roles("gene=gene variant=SNP beta=beta t=t-stat p=p-value"),
        ("SNP", "gene", "beta", "t-stat", "p-value"),
        confirmed="published excerpts of results",
    ),
    EqtlFormat(
        "eqtl-catalogue",
        _roles("gene=molecular_trait_id variant=variant beta=beta se=se p=pvalue"),
        ("molecular_trait_id", "variant", "pvalue", "beta", "se", "ma_samples"),
    ),
    EqtlFormat(
        "qtltools-header", _QTLTOOLS_ROLES, tuple(name for name in _QTLTOOLS if name != "slope_se")
    ),
    EqtlFormat(
        "qtltools-nominal",
        _QTLTOOLS_ROLES,
        _QTLTOOLS,
        header=False,
        confirmed="files made by running QTLtools 1.3.1 cis --nominal --std-err",
    ),
    EqtlFormat(
        "qtltools-nominal-without-errors",
        {role: name for role, name in _QTLTOOLS_ROLES.items() if role != "se"},
        tuple(name for name in _QTLTOOLS if name != "slope_se"),
        header=False,
        confirmed="files made by running QTLtools 1.3.1 cis --nominal",
    ),
    EqtlFormat(
        "fastqtl-7",
        _roles("gene=gene variant=variant beta=slope se=slope_se p=pval"),
        _FASTQTL_7,
        header=False,
        confirmed="files made by running FastQTL 2.184 v7, GTEx's",
    ),
    EqtlFormat(
        "fastqtl",
        _roles("gene=gene variant=variant beta=slope p=pval"),
        ("gene", "variant", "distance", "pval", "slope"),
        header=False,
    ),
)
