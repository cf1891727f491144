"""What is said about the scan behind the effects: its pictures, its settings, its lamp."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.words import counted, listed
from plait.gwas.interaction_results import OfInteractions
from plait.gwas.plots import surest_of_traits
from plait.gwas.results import AssociationResult
from plait.numerics.order_statistics import column_medians
from plait.numerics.uniformity import inflation_of_medians
from plait.plot.manhattan import UNPLACED
from plait.plot.style import chosen_traits
from plait.report import scan_figures as draw
from plait.report.figures import GREY
from plait.report.page import Figure, Numbers, Section, Verdict

Array = NDArray[np.float64]

_INFLATED, _CONFOUNDED, _QUIET = 1.2, 2.0, 1.1
_CHANCE = 7.0
"""Three standard errors of lambda, times the root of the number of independent tests.

The median of M chi-squares of one degree of freedom, over that of the law, has an error of
``1 / (2 f(m) m sqrt(M)) = 2.33 / sqrt(M)``, f being the density at the median m. In linkage it is
larger."""
_ENOUGH_VARIANTS, _ENOUGH_CHROMOSOMES = 200, 3
_INDEPENDENT = ("linear", "logistic")
_MODELS = {
    "linear": "linear: samples are taken as unrelated",
    "mixed": "mixed: samples are related as their genotypes say",
    "whole-genome": "whole-genome: beside what the other chromosomes predict",
    "logistic": "logistic: cases and controls, samples taken as unrelated",
    "whole-genome-logistic": "whole-genome logistic: cases and controls, beside what the other "
    "chromosomes predict",
}
_ALL_TRAITS = "the surest trait at every variant"
_TRANSFORMS = {
    "none": "as they are",
    "rank": "normal scores of ranks",
    "rank-residuals": "normal scores of the ranks of residuals",
}
_MISSING = {"mean": "the mean of their variant", "drop": "left out, variant by variant"}


@dataclass(frozen=True, eq=False)
class ScanFindings:
    """What the words about a scan are made of.

    Attributes
    ----------
    model : str
        As `plait.gwas.scan` takes it.
    traits : tuple of str
    inflation : (T,) array
        lambda of each trait.
    tests : (T,) int array
        Variants tested for each trait.
    hits : (T,) int array
        Variants beyond genome-wide significance.
    leads : list of int or None
        The variant of the smallest p-value of each trait.
    by_chromosome : dict of str to float
        lambda of each chromosome with 200 tested variants or more, for the trait with the largest
        lambda; empty for fewer than three chromosomes.
    n_components : int
        Principal components among the covariates.
    """

    model: str
    traits: tuple[str, ...]
    inflation: Array
    tests: NDArray[np.int64]
    hits: NDArray[np.int64]
    leads: list[int | None]
    by_chromosome: dict[str, float]
    n_components: int

    @property
    def most_inflated(self) -> int:
        """The trait with the largest lambda beyond chance; without one, with the largest."""
        return _most_inflated(self.inflation, self.tests)

    @property
    def is_inflated(self) -> bool:
        """Whether lambda of some trait is larger than chance gives."""
        return bool(_beyond_chance(self.inflation, self.tests).any())


def collect_scan(scan: AssociationResult) -> ScanFindings:
    """Go over a scan, part by part where it stays in its store."""
    options = {} if scan.provenance is None else scan.provenance.options
    hits, leads, _ = scan.leads()
    inflation, tests = scan.lambda_gc, _tests(scan)
    names = [str(name) for name in options.get("covariates", ())]
    return ScanFindings(
        model=str(options.get("model", "linear")),
        traits=scan.traits,
        inflation=inflation,
        tests=tests,
        hits=hits,
        leads=leads,
        by_chromosome=_by_chromosome(scan, _most_inflated(inflation, tests)),
        n_components=sum(re.fullmatch(r"PC\d+", name) is not None for name in names),
    )


def _tests(scan: AssociationResult | OfInteractions) -> NDArray[np.int64]:
    """Return how many variants were tested for each trait, (T,)."""
    counts = [np.isfinite(scan.surest[rows]).sum(axis=0) for rows in scan.parts()]
    return np.asarray(np.sum(counts, axis=0, dtype=np.int64))


def _beyond_chance(inflation: Array, tests: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each trait whether lambda is large, and larger than chance makes that of few tests.

    False where there is none.
    """
    least = np.maximum(_INFLATED, 1 + _CHANCE / np.sqrt(np.maximum(tests, 1)))
    return np.asarray(inflation > least)


def _most_inflated(inflation: Array, tests: NDArray[np.int64]) -> int:
    beyond = _beyond_chance(inflation, tests)
    return int(np.nanargmax(np.where(beyond, inflation, -1.0) if beyond.any() else inflation))


def _by_chromosome(scan: AssociationResult, trait: int) -> dict[str, float]:
    found = {}
    for name, pieces in scan.by_chromosome().items():
        heights = partial(_heights, scan, pieces, trait)
        if sum(int((~np.isnan(part)).sum()) for part in heights()) >= _ENOUGH_VARIANTS:
            found[name] = float(inflation_of_medians(column_medians(heights, 1))[0])
    return found if len(found) >= _ENOUGH_CHROMOSOMES else {}


def _heights(
    scan: AssociationResult, pieces: Sequence[tuple[slice, Any]], trait: int
) -> Iterator[Array]:
    """Yield -log10 p of a trait in the pieces of a chromosome, (n, 1)."""
    for span, rows in pieces:
        yield np.abs(scan.log10p[span][rows, trait : trait + 1])


def inflation_verdict(found: ScanFindings) -> Verdict:
    """Judge whether the p-values of a scan are to be believed.

    Relatives and structure raise all p-values, on every chromosome; so do very many true effects,
    but only on the chromosomes that they are on. A mixed model takes the first away.
    """
    highest, trait = found.inflation[found.most_inflated], found.traits[found.most_inflated]
    said = f"The largest lambda is {highest:.2f} ({trait}), by the {found.model} model."
    if found.model not in _INDEPENDENT:
        text = (
            f"{said} That model allows for relatives and structure; what is left is mostly signal."
        )
        return Verdict("good", "Scan of related samples", text)
    if not found.is_inflated:
        if highest > _INFLATED:
            number = counted(int(found.tests[found.most_inflated]), "test")
            said += f" So much is chance with {number}."
        return Verdict("good", "Scan not inflated", f"{said} 1 is what chance gives.")
    where, is_quiet = _where(found.by_chromosome)
    known = (
        f" {counted(found.n_components, 'principal component')} among the covariates "
        f"{'takes' if found.n_components == 1 else 'take'} structure away, but not relatives."
        if found.n_components
        else ""
    )
    remedy = "mixed" if found.model == "linear" else "whole-genome-logistic"
    tells = f" A scan with --model {remedy} tells: what is left of lambda there is mostly signal."
    if highest <= _CONFOUNDED or is_quiet:
        text = f"{said} Many true effects in linkage raise it, and so do relatives and structure."
        title = "Scan raised on some chromosomes" if is_quiet else "Scan inflated"
        return Verdict("caution", title, text + where + known + tells)
    text = f"{said} So much is rarely signal alone: relatives or structure make all p-values too "
    text += "small, and the effects here with them."
    return Verdict("bad", "Scan inflated everywhere", text + where + known + tells)


def scan_warning(scan: AssociationResult) -> str:
    """Return what is to be said of the p-values of a scan; empty where nothing is."""
    if not (scan.lambda_gc > _INFLATED).any():  # then there is no more to be read
        return ""
    verdict = inflation_verdict(collect_scan(scan))
    return "" if verdict.state == "good" else f"{verdict.title.lower()}. {verdict.reason}"


def interaction_warning(scan: OfInteractions) -> str:
    """Return what is to be said of the p-values of interactions; empty where nothing is."""
    inflation, tests = scan.lambda_gc, _tests(scan)
    if not _beyond_chance(inflation, tests).any():
        return ""
    worst = _most_inflated(inflation, tests)
    text = (
        f"interactions inflated. The largest lambda is {inflation[worst]:.2f} "
        f"({scan.traits[worst]}); 1 is what chance gives. Relatives and structure raise it, so do "
        "many true interactions in linkage"
    )
    if scan.robust:
        return f"{text}."
    return (
        f"{text}, and a variance of the trait that changes with {scan.environment}; the last is "
        "taken away by --robust."
    )


def _where(by_chromosome: Mapping[str, float]) -> tuple[str, bool]:
    """Say what lambda is on chromosomes, and whether it is near 1 on one of them."""
    if not by_chromosome:
        return "", False
    low, high = (choose(by_chromosome, key=by_chromosome.__getitem__) for choose in (min, max))
    span = f"{by_chromosome[low]:.2f} (chromosome {low}) to {by_chromosome[high]:.2f} ({high})"
    if by_chromosome[low] <= _QUIET:
        return (
            f" lambda goes from {span}: true effects raise the chromosomes that they are on, "
            "relatives and structure all of them.",
            True,
        )
    return f" All chromosomes are raised, from {span}.", False


def scan_section(scan: AssociationResult, found: ScanFindings) -> Section:
    """Return the pictures and settings of a scan."""
    genome = draw.Genome.of(np.asarray(scan.chrom), np.asarray(scan.pos))
    smallest = np.array(
        [0.0 if j is None else scan.log10p[j][t] for t, j in enumerate(found.leads)]
    )
    own, others = chosen_traits(-smallest)
    return Section(
        "scan-section",
        "The scan",
        _intro(scan, found),
        [_manhattan(scan, found, genome, own, others), _qq(scan, found, own, others)],
        _facts(scan, found),
    )


def _intro(scan: AssociationResult, found: ScanFindings) -> str:
    hits = int(found.hits.sum())
    low, high = int(np.nanargmin(found.inflation)), found.most_inflated
    span = f"{found.inflation[high]:.2f}"
    if low != high:
        span = f"{found.inflation[low]:.2f} ({found.traits[low]}) to {span} ({found.traits[high]})"
    return (
        f"{counted(scan.n_tested, 'variant')} tested for {counted(len(scan.traits), 'trait')}, one "
        f"at a time, by the {found.model} model: {counted(hits, 'association')} at p < 5e-8. "
        f"lambda, the median test statistic over that of chance, is {span}."
    )


def _manhattan(
    scan: AssociationResult,
    found: ScanFindings,
    genome: draw.Genome,
    own: Sequence[int],
    others: Sequence[int],
) -> Figure:
    several = len(scan.traits) > 1
    colours = {k: draw.trait_colour(place) for place, k in enumerate(own)}
    chosen = _views(scan, genome, colours, others)
    about = _about(scan, list(chosen.values()))
    views = {name: draw.manhattan(genome, view, about) for name, view in chosen.items()}
    where = "its place in the genome"
    signal = (
        "A true signal is a column of points, neighbours inherited together; a single high point "
        "deserves distrust. "
    )
    if all(name == UNPLACED for name, _ in genome.ticks):
        where, signal = "its number in the file, as places are not known", ""
    key = [(colours[k], scan.traits[k]) for k in own if found.hits[k]]
    if sum(found.hits[k] for k in others):
        key.append((GREY, "other traits"))
    return Figure(
        name="manhattan",
        title="Associations along the genome",
        caption=(
            f"Each point is a variant: {where}, and −log₁₀ of its p-value. Points above the dashed "
            f"line (p < 5e-8) have the colour of their trait. {signal}Where points crowd, some of "
            "them are drawn."
        ),
        description="Manhattan plot: minus log10 p along the genome.",
        spec=next(iter(views.values())),
        numbers=_lead_table(scan, found),
        key=key if several else (),
        is_wide=True,
        views=views,
    )


def _qq(
    scan: AssociationResult, found: ScanFindings, own: Sequence[int], others: Sequence[int]
) -> Figure:
    few = ""
    rest = found.inflation[[k for k in others if found.tests[k]]]
    if len(rest):
        few = f" Drawn are the {len(own)} traits with the smallest p-values; lambda of the others "
        few += f"is {rest.min():.2f} to {rest.max():.2f}."
    return Figure(
        name="qq",
        title="p-values against chance",
        caption=(
            "Observed p-values against those that chance alone would give. Grey: where 95% of them "
            "lie without any effect. Points that leave the band only at the right are signals. "
            "Points above it from the start, and a lambda above 1, come from very many true "
            "effects in linkage, or from relatives and structure, which make all p-values too "
            f"small; the lamp above says what speaks for which.{few}"
        ),
        description="QQ plot: observed against expected minus log10 p.",
        spec=draw.qq([np.asarray(scan.log10p[:, k]) for k in own], [scan.traits[k] for k in own]),
        key=[
            (draw.trait_colour(place), f"{scan.traits[k]}, {_lambda(found, k, 2)}")
            for place, k in enumerate(own)
        ],
    )


def _lambda(found: ScanFindings, trait: int, digits: int) -> str:
    known = found.tests[trait] > 0
    return f"lambda {found.inflation[trait]:.{digits}f}" if known else "not tested"


def _views(
    scan: AssociationResult,
    genome: draw.Genome,
    colours: Mapping[int, str],
    others: Sequence[int],
) -> dict[str, draw.View]:
    """Choose the points of the surest trait at every variant, and of each trait with a colour."""
    log10p, which = surest_of_traits(scan)
    rows = draw.shown_of(genome, -log10p)
    groups = [(colour, which[rows] == k) for k, colour in colours.items()]
    groups += [(GREY, np.isin(which[rows], others))] if others else []
    if len(scan.traits) == 1:
        return {scan.traits[0]: draw.View(rows, -log10p[rows], groups)}
    traits = np.array(scan.traits, dtype=object)[which[rows]]
    views = {_ALL_TRAITS: draw.View(rows, -log10p[rows], groups, traits)}
    for k, colour in colours.items():
        heights = -np.asarray(scan.log10p[:, k])
        rows = draw.shown_of(genome, heights)
        all_of_them = [(colour, np.ones(len(rows), dtype=np.bool_))]
        views[scan.traits[k]] = draw.View(rows, heights[rows], all_of_them)
    return views


def _about(scan: AssociationResult, views: Sequence[draw.View]) -> dict[int, tuple[str, str]]:
    """Return names and places of the variants that say what they are, read in one go."""
    rows = np.unique(np.concatenate([view.rows[view.told] for view in views]))
    columns = (scan.names_of(rows), scan.chrom[rows], scan.pos[rows])
    lists = (np.asarray(column).tolist() for column in columns)
    return {
        row: (str(name), f"{chrom}:{pos}")
        for row, name, chrom, pos in zip(rows.tolist(), *lists, strict=True)
    }


def _lead_table(scan: AssociationResult, found: ScanFindings) -> Numbers:
    head = ["trait", "p < 5e-8", "lambda", "surest variant", "place", "effect allele", "effect",
            "standard error", "log10 p"]  # fmt: skip
    rows = []
    for k, (trait, lead) in enumerate(zip(scan.traits, found.leads, strict=True)):
        row = [trait, f"{found.hits[k]:,}", _lambda(found, k, 3).removeprefix("lambda ")]
        if lead is not None:
            one = slice(lead, lead + 1)
            name, chrom, ea = (
                str(column[0]) for column in (scan.names_of(one), scan.chrom[one], scan.ea[one])
            )
            row += [name, f"{chrom}:{int(scan.pos[one][0]):,}", ea]
            row += [f"{scan.beta[one][0, k]:.4g}", f"{scan.se[one][0, k]:.3g}"]
            row.append(f"{scan.log10p[one][0, k]:.1f}")
        rows.append(row + [""] * (len(head) - len(row)))
    return Numbers(head, rows)


def _facts(scan: AssociationResult, found: ScanFindings) -> dict[str, str]:
    """Return the settings of a scan, and what it left out, in words."""
    options: Mapping[str, Any] = {} if scan.provenance is None else scan.provenance.options
    facts = {"model": _MODELS.get(found.model, found.model)}
    if scan.counts_own_chromosome:
        facts["model"] += ", those on the chromosome of a variant too: tests are conservative"
    facts["samples"] = _samples(scan, options)
    if "covariates" in options:
        facts["covariates"] = listed([str(name) for name in options["covariates"]]) or "none"
    if "transform" in options:
        facts["traits"] = _TRANSFORMS.get(options["transform"], str(options["transform"]))
    if "missing_genotypes" in options:
        facts["missing genotypes"] = _MISSING[options["missing_genotypes"]]
    facts["variants must have"] = _rules(options) or "no more than variation"
    facts["variants"] = f"{len(scan.beta):,} in the genotypes, {scan.n_tested:,} tested"
    facts["tests left out"] = scan.left_out or "none"
    for name, values, what in (
        ("share of variance that follows relationships", scan.h2, ".2f"),
        ("share of variance predicted from other samples", scan.explained, ".1%"),
        ("cases", scan.n_cases, ",.0f"),
    ):
        if values is not None:
            pairs = zip(scan.traits, values.tolist(), strict=True)
            facts[name] = listed([f"{trait} {value:{what}}" for trait, value in pairs])
    return facts


def _samples(scan: AssociationResult, options: Mapping[str, Any]) -> str:
    fewest, most = scan.n_samples
    text = f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}, by trait"
    counts = {
        "genotypes": options.get("n_genotyped"),
        "traits": options.get("n_phenotyped"),
        "covariates": options.get("n_with_covariates"),
    }
    there = ", ".join(f"{count:,} with {name}" for name, count in counts.items() if count)
    return f"{text} ({there})" if there else text


def _rules(options: Mapping[str, Any]) -> str:
    """Say the rules of a `plait.gwas.VariantFilter`."""
    rules = {
        "min_call_rate": "a call rate of {:g} or more",
        "min_minor_count": "{:,} copies of the rarer allele or more",
        "min_frequency": "a frequency of the rarer allele of {:g} or more",
        "min_info": "an imputation quality of {:g} or more",
    }
    return ", ".join(
        text.format(options[name]) for name, text in rules.items() if options.get(name) is not None
    )
