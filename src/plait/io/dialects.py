"""What the columns of association tools are called, and which of their alleles the effect is of.

A dialect is a line of data: the columns of one tool's output with what each of them means, those
in brackets optional, alternatives joined by ``|``. Where two columns mean the same, the first one
is taken.

Names of columns were taken from the tools' public documentation. A dialect is *confirmed* when
its reading was tried on a file that the tool made. An unconfirmed one is never applied silently:
it must be asked for by name, or its columns given.

Some tables hold several contexts side by side: populations, methods, studies. There a ``*`` in the
name of a column stands for the name of the context.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from plait.errors import (
    AmbiguousAlleleColumnsError,
    LabelError,
    OptionError,
    UnknownDialectError,
)

_log = logging.getLogger("plait.io")

ROLES = frozenset(
    [
        "chrom",
        "pos",
        "ea",
        "oa",
        "eaf",
        "beta",
        "se",
        "z",
        "t",
        "p",
        "neg_log10_p",
        "log10p",
        "odds_ratio",
        "hazard_ratio",
        "ci_lower",
        "ci_upper",
        "n",
        "n_cases",
        "n_controls",
        "info",
        "id",
        "rsid",
        "trait",
        "test",
        "ref",
        "alt",
        "variant",
        "hm_code",
        "error_code",
        "remark",
        "converged",
        "low_confidence",
    ]
)
"""What a column can mean. ``ref`` and ``alt`` are the two alleles where a third column says which
is the effect allele; ``variant`` is ``chr:pos:ref:alt`` with the effect of ``alt``; ``hm_code`` is
what harmonising did to a row of GWAS-SSF. The last four are what a tool says of its own rows: a
code where something went wrong, a remark that may be TEST_FAIL, and two that are true or false."""


@dataclass(frozen=True)
class Dialect:
    """The columns of one tool's output.

    Attributes
    ----------
    name : str
    layout : str
        ``header=role`` per column, in the usual order; see the module.
    confirmed : str
        On what the dialect was confirmed; empty: only documented.
    note : str
    combined : tuple of str
        Contexts that are made of the others, and not read with them.
    """

    name: str
    layout: str
    confirmed: str = ""
    note: str = ""
    combined: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> tuple[tuple[str, str, int], ...]:
        """Header, role (may be empty) and group; one of each group is needed, group -1 is not."""
        parsed, optional = [], False
        for group, token in enumerate(self.layout.split()):
            opened = optional or token.startswith("[")
            optional = opened and not token.endswith("]")
            for part in token.strip("[]").split("|"):
                header, _, role = part.partition("=")
                parsed.append((header, role, -1 if opened else group))
        return tuple(parsed)

    @property
    def has_contexts(self) -> bool:
        """Whether its tables hold contexts side by side."""
        return "*" in self.layout

    def matches(self, header: Sequence[str]) -> int:
        """Return how many columns are this dialect's; 0 where one that is needed is absent."""
        present = frozenset(header)
        if self.has_contexts:
            columns = [self._columns_of(present, context) for context in self.contexts(header)]
            return len({name for found in columns for name, _ in found})
        return len(self._columns_of(present))

    def contexts(self, header: Sequence[str]) -> tuple[str, ...]:
        """Return the contexts that a table holds, in its order."""
        needed = [name for name, _, group in self.columns if "*" in name and group >= 0]
        if not needed:
            return ()
        before, after = needed[0].split("*")
        names = [
            name[len(before) : len(name) - len(after)]
            for name in header
            if len(name) > len(needed[0]) - 1 and name.startswith(before) and name.endswith(after)
        ]
        present = frozenset(header)
        return tuple(name for name in names if self._columns_of(present, name))

    def roles(self, header: Sequence[str], context: str = "") -> dict[str, str]:
        """Return the column of each role, of one context."""
        roles: dict[str, str] = {}
        for name, role in self._columns_of(frozenset(header), context):
            if role:
                roles.setdefault(role, name)
        return roles

    def _columns_of(self, present: frozenset[str], context: str = "") -> list[tuple[str, str]]:
        """Return columns that are there, with their roles; none where a needed one is not."""
        columns = [(name.replace("*", context), role, k) for name, role, k in self.columns]
        needed = {group for _, _, group in columns if group >= 0}
        found = {group for name, _, group in columns if group >= 0 and name in present}
        if needed - found:
            return []
        return [(name, role) for name, role, _ in columns if name in present]


_RUN = "files made by running {}"
_EXAMPLE = "example results in the tool's public repository"

DIALECTS = (
    Dialect(
        "plink19-regression",
        "CHR=chrom SNP=id BP=pos A1=ea TEST=test NMISS=n BETA=beta|OR=odds_ratio "
        "[SE=se L95=ci_lower U95=ci_upper] STAT=t P=p",
        _RUN.format("PLINK 1.90b6.26 --linear and --logistic"),
        "the other allele is not in the file: give the .bim as variants",
    ),
    Dialect(
        "plink19-qassoc",
        "CHR=chrom SNP=id BP=pos NMISS=n BETA=beta SE=se R2 T=t P=p",
        _RUN.format("PLINK 1.90b6.26 --assoc"),
        "the alleles are not in the file, and PLINK 1.9 may have exchanged those of the .bim",
    ),
    Dialect(
        "plink19-assoc",
        "CHR=chrom SNP=id BP=pos A1=ea F_A F_U A2=oa CHISQ P=p OR=odds_ratio "
        "[SE=se L95=ci_lower U95=ci_upper]",
        _RUN.format("PLINK 1.90b6.26 --assoc"),
    ),
    Dialect(
        "plink2-linear",
        "CHROM=chrom POS=pos ID=id REF=ref ALT=alt [PROVISIONAL_REF?] A1=ea [OMITTED=oa] "
        "[A1_FREQ=eaf] TEST=test OBS_CT=n BETA=beta SE=se [L95=ci_lower U95=ci_upper] T_STAT=t "
        "P=p|LOG10_P=neg_log10_p|NEG_LOG10_P=neg_log10_p [ERRCODE=error_code]",
        _RUN.format("PLINK 2.00 alpha 3.5 --glm"),
    ),
    Dialect(
        "plink2-logistic",
        "CHROM=chrom POS=pos ID=id REF=ref ALT=alt [PROVISIONAL_REF?] A1=ea [OMITTED=oa] "
        "[A1_FREQ=eaf A1_CASE_FREQ A1_CTRL_FREQ FIRTH?] TEST=test OBS_CT=n "
        "OR=odds_ratio|BETA=beta LOG(OR)_SE=se|SE=se [L95=ci_lower U95=ci_upper] Z_STAT=t "
        "P=p|LOG10_P=neg_log10_p|NEG_LOG10_P=neg_log10_p [ERRCODE=error_code]",
        _RUN.format("PLINK 2.00 alpha 3.5 --glm, hybrid and firth"),
    ),
    Dialect(
        "regenie",
        "CHROM=chrom GENPOS=pos ID=id ALLELE0=oa ALLELE1=ea A1FREQ=eaf "
        "[A1FREQ_CASES A1FREQ_CONTROLS INFO=info] N=n [N_CASES N_CONTROLS] TEST=test BETA=beta "
        "SE=se CHISQ LOG10P=neg_log10_p [EXTRA=remark]",
        _EXAMPLE,
    ),
    Dialect(
        "saige",
        "CHR=chrom POS=pos MarkerID=id Allele1=oa Allele2=ea AC_Allele2 AF_Allele2=eaf "
        "MissingRate|imputationInfo=info BETA=beta SE=se Tstat var p.value=p "
        "[p.value.NA Is.SPA AF_case AF_ctrl N_case=n_cases N_ctrl=n_controls N=n]",
        _EXAMPLE,
        "Tstat is the score, not t",
    ),
    Dialect(
        "saige-0",
        "CHR=chrom POS=pos [rsid=rsid] SNPID=id Allele1=oa Allele2=ea AC_Allele2 AF_Allele2=eaf "
        "imputationInfo=info N=n BETA=beta SE=se Tstat p.value=p "
        "[p.value.NA Is.SPA.converge=converged] varT varTstar "
        "[AF.Cases AF.Controls N.Cases N.Controls]",
        _EXAMPLE,
    ),
    Dialect(
        "bolt-lmm",
        "SNP=id CHR=chrom BP=pos [GENPOS] ALLELE1=ea ALLELE0=oa A1FREQ=eaf [INFO=info F_MISS] "
        "[CHISQ_LINREG P_LINREG] BETA=beta SE=se [CHISQ_BOLT_LMM_INF] "
        "P_BOLT_LMM=p|P_BOLT_LMM_INF=p [CHISQ_BOLT_LMM]",
        "a published table of 82,448 variants",
        "P_BOLT_LMM is preferred to P_BOLT_LMM_INF",
    ),
    Dialect(
        "fastgwa",
        "CHR=chrom SNP=id POS=pos A1=ea A2=oa N=n AF1=eaf BETA=beta SE=se P=p "
        "[INFO=info T SE_T P_noSPA CONVERGE=converged]",
        "published excerpts of results",
        "T is the score, not t",
    ),
    Dialect("gcta-mlma", "Chr=chrom SNP=id bp=pos A1=ea A2=oa Freq=eaf b=beta se=se p=p"),
    Dialect(
        "gcta-cojo",
        "SNP=id A1=ea A2=oa freq=eaf b=beta se=se p=p N=n",
        "published excerpts of tables",
        "positions are not in the file",
    ),
    Dialect(
        "gemma",
        "chr=chrom rs=id ps=pos n_miss|n_mis [n_obs=n] allele1=ea allele0=oa af=eaf beta=beta "
        "se=se [logl_H1 l_remle l_mle] p_wald=p|p_lrt=p|p_score=p",
        _RUN.format("GEMMA 0.98.5 -lmm and -lm"),
    ),
    Dialect(
        "snptest",
        "alternate_ids rsid=id chromosome=chrom position=pos alleleA=oa alleleB=ea [info=info] "
        "[all_total=n] frequentist_add_pvalue=p frequentist_add_beta_1=beta "
        "frequentist_add_se_1=se",
        "an output of SNPTEST 2.5.4 in a public repository",
    ),
    Dialect(
        "metal",
        "MarkerName=id Allele1=ea Allele2=oa [Freq1=eaf FreqSE MinFreq MaxFreq] Effect=beta "
        "StdErr=se P-value=p Direction [HetISq HetChiSq HetDf HetPVal TotalSampleSize=n]",
    ),
    Dialect(
        "metal-sample-size",
        "MarkerName=id Allele1=ea Allele2=oa [Freq1=eaf FreqSE MinFreq MaxFreq] Weight=n "
        "Zscore=z P-value=p Direction [HetISq HetChiSq HetDf HetPVal]",
    ),
    Dialect(
        "ldsc",
        "SNP=id [CHR=chrom BP=pos] A1=ea A2=oa N=n Z=z",
        "a published table of 6,419 variants",
        "z only",
    ),
    Dialect(
        "mtag",
        "SNP=id CHR=chrom BP=pos A1=ea A2=oa meta_freq=eaf mtag_beta=beta mtag_se=se mtag_z=z "
        "mtag_pval=p",
    ),
    Dialect(
        "mtag-input",
        "snpid=id chr=chrom bpos=pos a1=ea a2=oa freq=eaf z=z [beta=beta se=se] pval=p n=n",
    ),
    Dialect(
        "finngen",
        "chrom=chrom pos=pos ref=oa alt=ea rsids=rsid nearest_genes pval=p mlogp=neg_log10_p "
        "beta=beta sebeta=se af_alt=eaf [af_alt_cases af_alt_controls]",
    ),
    Dialect(
        "neale",
        "variant=variant minor_allele minor_AF low_confidence_variant=low_confidence "
        "n_complete_samples=n AC ytx beta=beta se=se tstat=t pval=p",
    ),
    Dialect(
        "pan-ukb",
        "chr=chrom pos=pos ref=oa alt=ea [af_*=eaf] beta_*=beta se_*=se "
        "neglog10_pval_*=neg_log10_p [low_confidence_*=low_confidence]",
        note="a context for each population",
        combined=("meta", "meta_hq"),
    ),
    Dialect(
        "gwas-vcf",
        "CHROM=chrom POS=pos ID=id REF=oa ALT=ea *:ES=beta *:SE=se [*:LP=neg_log10_p *:AF=eaf] "
        "[*:SS=n|*:NS=n *:EZ=z *:SI=info]",
        "published excerpts of files made by gwas2vcf",
        "a context for each study; see plait.io.gwas_vcf",
    ),
    Dialect(
        "panicle",
        "MARKER=id CHROM=chrom POS=pos [SNP] REF=oa ALT=ea MAF *_P=p *_Effect=beta [*_SE=se]",
        _RUN.format("PANICLE 0.5.0 with GLM and MLM on a VCF"),
        "a context for each method; the standard error is that of p where it is not in the file",
    ),
    Dialect("ldak", "Predictor=id A1=ea A2=oa Z=z|BETA=beta [SE=se] n=n [A1Freq=eaf]"),
    Dialect(
        "gwas-ssf",
        "chromosome=chrom base_pair_location=pos effect_allele=ea other_allele=oa "
        "beta=beta|odds_ratio=odds_ratio|hazard_ratio=hazard_ratio standard_error=se "
        "effect_allele_frequency=eaf p_value=p|neg_log_10_p_value=neg_log10_p "
        "[variant_id=id id=id rsid=rsid info=info ci_upper=ci_upper ci_lower=ci_lower n=n] "
        "[ref_allele hm_code=hm_code hm_coordinate_conversion]",
        "the standard itself",
    ),
    Dialect(
        "plait-scan",
        "chrom=chrom pos=pos id=id oa=oa ea=ea eaf=eaf beta.*=beta se.*=se log10p.*=log10p n.*=n",
        "its own files",
        "a context for each trait",
    ),
    Dialect(
        "plait",
        "chrom=chrom pos=pos ea=ea oa=oa beta=beta se=se [eaf=eaf z=z log10p=log10p n=n] "
        "[info=info id=id rsid=rsid trait=trait test=test]",
        "its own files",
    ),
)

# The order of alleles decides: names that say "effect" before names that tools use both ways.
_EFFECT_ALLELE = ("effect_allele", "ea", "tested_allele", "risk_allele", "a1", "allele1", "alt")
_OTHER_ALLELE = (
    "other_allele", "non_effect_allele", "nea", "oa", "a2", "a0", "allele0", "allele2", "ref",
)  # fmt: skip
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "pos": ("pos", "bp", "base_pair_location", "genpos", "position"),
    "chrom": ("chr", "chrom", "chromosome"),
    "eaf": ("eaf", "af", "af1", "a1freq", "a1_freq", "freq", "frq", "effect_allele_frequency"),
    "beta": ("beta", "b", "effect", "es", "slope"),
    "odds_ratio": ("or", "odds_ratio", "oddsratio"),
    "hazard_ratio": ("hr", "hazard_ratio"),
    "se": ("se", "sebeta", "standard_error", "stderr", "slope_se", "lfcse"),
    "p": ("p", "pval", "p_value", "p.value", "p-value", "pvalue", "p_wald", "nom_pval"),
    "ci_lower": ("ci_lower", "lower_ci", "ci_low", "ci95_lower", "l95"),
    "ci_upper": ("ci_upper", "upper_ci", "ci_high", "ci95_upper", "u95"),
    "t": ("t", "t_stat", "t-stat", "tstat"),
    "z": ("z", "zscore", "z_score", "zstat", "z_stat"),
    "neg_log10_p": ("log10p", "mlog10p", "mlogp", "neg_log_10_p_value", "lp"),
    "rsid": ("rsid", "rs", "rs_id"),
    "id": ("id", "snp", "markername", "marker", "variant_id", "snpid"),
    "info": ("info", "imputation_quality"),
    "n": ("n", "nsample", "obs_ct", "n_samples", "totalsamplesize"),
    "test": ("test",),
}
_EFFECTS = frozenset(["beta", "odds_ratio", "hazard_ratio", "z"])
_SHOWN = ("chrom", "pos", "id", "ea", "oa", "eaf", "beta", "odds_ratio", "z", "se", "p", "n")
"""The order in which columns are named in an example."""


def find_roles(
    header: Sequence[str],
    dialect: str | None = None,
    columns: Mapping[str, str] | None = None,
    where: str = "the table",
    context: str | None = None,
) -> tuple[str, dict[str, str]]:
    """Return the dialect of a header and which column plays each role.

    Parameters
    ----------
    header : sequence of str
        The names of the columns; a leading ``#`` of the first is not part of its name.
    dialect : str, optional
        The name of a dialect; default: the one most columns of which are there.
    columns : mapping of role to column, optional
        Given alone, these columns and no others are used. With a dialect, they go before its own.
    where : str
        What is read, for messages.
    context : str, optional
        Which context, where the table holds several.

    Raises
    ------
    UnknownDialectError
        The columns are no known dialect's, of an unconfirmed one, or of two equally well.
    AmbiguousAlleleColumnsError
        The header does not say which allele is the effect allele.
    OptionError, LabelError
        ``dialect``, ``columns`` or ``context`` are not possible.
    """
    given = dict(columns or {})
    _check_columns(given, header, where)
    if dialect is None and given:
        found = None
    else:
        found = _named(dialect, header, where) if dialect else _detect(header, where)
    if found is None or not found.has_contexts:
        if context is not None:
            raise OptionError(f"{where} holds one context only; leave out context={context!r}.")
        if found is not None:
            return found.name, {**found.roles(header), **given}
        return ("columns", given) if given else ("aliases", _by_alias(header, where))
    return found.name, {**found.roles(header, _one_context(found, header, where, context)), **given}


def find_contexts(
    header: Sequence[str], dialect: str | None = None, where: str = "the table"
) -> tuple[str, ...]:
    """Return the contexts that a table holds side by side; none where it is of one context.

    Those that are made of others (meta-analyses of the populations beside them) are left out.
    """
    found = _named(dialect, header, where) if dialect else _detect(header, where)
    if found is None:
        return ()
    return tuple(name for name in found.contexts(header) if name not in found.combined)


def only_context(header: Sequence[str], dialect: str) -> str | None:
    """Return the context of a table that holds one by its name; None where it holds none or more.

    Parameters
    ----------
    header : sequence of str
    dialect : str
        As `find_roles` returns it.
    """
    found = next((known for known in DIALECTS if known.name == dialect), None)
    names = () if found is None else found.contexts(header)
    return names[0] if len(names) == 1 else None


def _one_context(found: Dialect, header: Sequence[str], where: str, wanted: str | None) -> str:
    names = found.contexts(header)
    if wanted is None and len(names) == 1:
        return names[0]
    listed = ", ".join(names)
    if wanted is None:
        raise OptionError(f"{where} holds several contexts: {listed}. Say which: context=.")
    if wanted not in names:
        raise LabelError(f"{where} has no context {wanted!r}; there are {listed}.")
    return wanted


def _check_columns(given: Mapping[str, str], header: Sequence[str], where: str) -> None:
    unknown = [role for role in given if role not in ROLES]
    if unknown:
        raise OptionError(f"columns: unknown role {unknown[0]!r}; there are {sorted(ROLES)}.")
    absent = [name for name in given.values() if name not in header]
    if absent:
        raise LabelError(f"{where} has no column {absent[0]!r}; it has {', '.join(header)}.")


def _named(name: str, header: Sequence[str], where: str) -> Dialect:
    known = {dialect.name: dialect for dialect in DIALECTS}
    if name not in known:
        raise OptionError(f"unknown dialect {name!r}; there are {', '.join(known)}.")
    dialect = known[name]
    if not dialect.matches(header):
        raise UnknownDialectError(
            f"{where} is not of the dialect {name!r}, which has the columns {dialect.layout}; "
            f"found {', '.join(header)}."
        )
    if not dialect.confirmed:
        _log.warning("dialect %s: from documentation, not confirmed on a file", name)
    return dialect


def _detect(header: Sequence[str], where: str) -> Dialect | None:
    scores = {dialect: dialect.matches(header) for dialect in DIALECTS}
    best = max(scores.values())
    if best == 0:
        return None
    winners = [dialect for dialect, score in scores.items() if score == best]
    if len(winners) > 1:
        names = " and ".join(winner.name for winner in winners)
        raise UnknownDialectError(f"the columns of {where} fit {names} equally; give dialect=.")
    winner = winners[0]
    if not winner.confirmed:
        example = winner.roles(header, next(iter(winner.contexts(header)), ""))
        several = f" ({', '.join(winner.contexts(header))}: one at a time)" * winner.has_contexts
        raise UnknownDialectError(
            f"{where} has the columns {', '.join(header)}. It looks like {winner.name}, which "
            "plait knows from documentation only and has not confirmed on a file. If you know it "
            f"is, give dialect={winner.name!r}, or say what the columns are{several}: "
            f"columns={example}."
        )
    return winner


def _by_alias(header: Sequence[str], where: str) -> dict[str, str]:
    names = {name.lower(): name for name in header}
    fits = {
        role: [names[alias] for alias in aliases if alias in names]
        for role, aliases in _ALIASES.items()
    }
    roles = {role: found[0] for role, found in fits.items() if found}
    repeated = next((role for role, found in fits.items() if len(found) > 1), None)
    if repeated is not None:
        raise UnknownDialectError(
            f"{where} has several columns that may be {repeated}: {', '.join(fits[repeated])}. "
            f"{_say_which(roles | _likely_alleles(names), header)}"
        )
    roles |= _allele_columns(names, roles, where)
    if not _EFFECTS & roles.keys():
        raise UnknownDialectError(
            f"{where} has no column that is known to hold an effect or z. "
            f"{_say_which(roles, header)}"
        )
    _log.info("%s: no known dialect; columns by their usual names: %s", where, roles)
    return roles


def _say_which(roles: Mapping[str, str], header: Sequence[str]) -> str:
    """Say what there is, what is needed, and how to say which column is what."""
    example = dict(roles)
    if not _EFFECTS & example.keys():
        example |= {"beta": "...", "se": "..."}
    order = [role for role in _SHOWN if role in example]
    shown = {role: example[role] for role in (*order, *(r for r in example if r not in order))}
    return (
        f"It has {', '.join(header)}. A table needs an effect (beta, odds_ratio or hazard_ratio) "
        "with se, t, p or ci_lower and ci_upper, or z alone; to be laid beside others also chrom, "
        "pos, ea (the allele that the effect is of) and oa. Say which is which, for example "
        f"columns={shown}."
    )


def _likely_alleles(names: Mapping[str, str]) -> dict[str, str]:
    """Return the first columns that may be effect and other allele."""
    ea = next((names[alias] for alias in _EFFECT_ALLELE if alias in names), None)
    oa = next((names[alias] for alias in _OTHER_ALLELE if alias in names), None)
    return {role: name for role, name in (("ea", ea), ("oa", oa)) if name is not None}


def _allele_columns(
    names: Mapping[str, str], known: Mapping[str, str], where: str
) -> dict[str, str]:
    effects = [alias for alias in _EFFECT_ALLELE if alias in names]
    others = [alias for alias in _OTHER_ALLELE if alias in names]
    clear = effects[:1] and effects[0] in _EFFECT_ALLELE[:4]
    unclear = effects[:1] == ["allele1"] and not {"allele0", "a0"} & names.keys()
    if unclear or (len(effects) > 1 and not clear):
        found = ", ".join(names[alias] for alias in dict.fromkeys([*effects, *others]))
        likely = _likely_alleles(names)
        raise AmbiguousAlleleColumnsError(
            f"{where} has the allele columns {found}, and tools differ in which one the effect is "
            "of (METAL: Allele1, SAIGE: Allele2). Give dialect=, or the columns; if it is of "
            f"{likely['ea']}: {_say_which({**known, **likely}, list(names.values()))}"
        )
    if not effects:
        return {}
    roles = {"ea": names[effects[0]]}
    if others and others[0] != "ref":
        return roles | {"oa": names[others[0]]}
    if others and effects[0] == "alt":
        return roles | {"oa": names["ref"]}
    if others and "alt" in names:  # the other allele is the one of the two that is not ea
        return roles | {"ref": names["ref"], "alt": names["alt"]}
    return roles
