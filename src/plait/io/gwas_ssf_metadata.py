"""Metadata of GWAS-SSF: what the standard asks for, and one file of them for several traits."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from plait.data.summary_statistics import standard_build
from plait.errors import FileFormatError, InputError, LabelError, MissingSidecarError, OptionError
from plait.io.metadata_yaml import read_yaml_file, write_yaml

FILE_TYPE = "GWAS-SSF v1.0"
HM_CODES = (
    "1-4 palindromic, strand by allele frequency; 5-8 palindromic, strand assumed; 10-13 not "
    "palindromic; in each group: forward, forward with alleles exchanged, reverse, reverse with "
    "alleles exchanged"
)
ASSEMBLY = "genome_assembly"
"""The key of the genome build."""
TRAITS = "traits"
"""The key of a file for several traits below which each of them has metadata of its own."""
_MANDATORY = (
    ASSEMBLY, "coordinate_system", "trait_description", "samples",
    "genotyping_technology", "is_sorted", "is_harmonised", "data_file_name", "file_type",
    "data_file_md5sum", "date_metadata_last_modified",
)  # fmt: skip
_OPTIONAL = (
    "analysis_software", "gwas_id", "author_notes", "gwas_catalog_api", "imputation_panel",
    "imputation_software", "minor_allele_freq_lower_limit", "adjusted_covariates",
    "ontology_mapping", "sex", "harmonisation_reference", "hm_code_definition",
)  # fmt: skip
_LISTS = (
    "trait_description", "genotyping_technology", "samples", "adjusted_covariates",
    "ontology_mapping",
)  # fmt: skip
_SAMPLE_LISTS = ("sample_ancestry_category", "sample_ancestry", "ancestry_method")
_SAMPLE_COUNTS = ("sample_size", "case_count", "control_count")
_FLAGS = ("is_sorted", "is_harmonised")
_FOUND_OUT = {
    "coordinate_system": "1-based",
    "is_sorted": True,
    "is_harmonised": False,
    "file_type": FILE_TYPE,
    "data_file_name": "found out",
    "data_file_md5sum": "found out",
    "date_metadata_last_modified": "2000-01-01",
}
"""What a table tells when it is written, in the place of what it will be."""


def metadata_path(path: str | os.PathLike[str]) -> Path:
    """Return where the metadata of a table are."""
    return Path(f"{os.fspath(path)}-meta.yaml")


def read_gwas_ssf_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the metadata beside a table.

    Raises
    ------
    MissingSidecarError
        There are none.
    """
    place = metadata_path(path)
    if not place.is_file():
        raise MissingSidecarError(f"{path} needs its metadata {place.name} beside it.")
    return read_yaml_file(place)


def assembly_beside(path: str | os.PathLike[str]) -> str | None:
    """Return the genome build that metadata beside a table state, if there are any and they do."""
    place = metadata_path(path)
    if not place.is_file():
        return None
    return stated_assembly(read_yaml_file(place).get(ASSEMBLY), place)


def stated_assembly(build: str | None, place: str | os.PathLike[str]) -> str | None:
    """Return the one name of a genome build that a file states.

    Raises
    ------
    FileFormatError
        There is no such build; the message names the file.
    """
    try:
        return standard_build(build, ASSEMBLY)
    except OptionError as error:
        raise FileFormatError(
            f"{place}: {error} Correct it there, or say which it is (build=...)."
        ) from None


def assembly_metadata(build: str, name: str) -> str:
    """Return metadata, as YAML, of a table of this name of which no more is told than its build."""
    told = {ASSEMBLY: build, "coordinate_system": "1-based", "data_file_name": name}
    return write_yaml(told)


def metadata_of_trait(given: Mapping[str, Any], trait: str | None) -> dict[str, Any]:
    """Return what metadata for several traits say of one of them.

    Parameters
    ----------
    given : mapping
        Keys of the standard, and perhaps ``traits``: a mapping of names of traits to keys of the
        standard, which go before those of all.
    trait : str or None
        None where it is not known which trait the metadata are for.

    Raises
    ------
    InputError
        ``traits`` is no mapping of mappings.
    LabelError
        Traits have metadata of their own, and it is not known which of them this is.
    """
    sections = _sections(given)
    if sections and trait is None:
        raise LabelError(
            f"the metadata describe the traits {', '.join(sections)}; say which this is: trait=."
        )
    common = {key: value for key, value in given.items() if key != TRAITS}
    return common | dict(sections.get(trait, {})) if trait is not None else common


def metadata_of_traits(
    given: Mapping[str, Any], traits: Sequence[str], where: str = "metadata"
) -> dict[str, dict[str, Any]]:
    """Return the metadata of each trait, checked as far as they can be before there are tables.

    Parameters
    ----------
    given : mapping
        See `metadata_of_trait`.
    traits : sequence of str
        A trait that is not described is described by its name.
    where : str
        What is read, for messages.

    Returns
    -------
    dict of str to dict
        For `write_gwas_ssf`, which adds what the tables tell.

    Raises
    ------
    InputError
        Something that the standard demands is missing or wrong.
    LabelError
        A trait is described that there is none of.
    """
    sections = _sections(given)
    bare = [trait for trait in traits if trait not in sections]
    strange = [name for name in sections if name not in traits]
    if strange and bare:
        raise LabelError(
            f"{where} describes {strange[0]!r} below {TRAITS}, and there is no such trait; not "
            f"described are {', '.join(map(repr, bare))}."
        )
    if given.get("trait_description") and len(traits) > 1:
        raise InputError(
            f"{where} has one trait_description for {len(traits)} traits. Describe each by itself, "
            f"below '{TRAITS}:', its name (as {traits[0]!r}) and trait_description; one that is "
            "not described is called by its name."
        )
    described = {
        trait: completed({"trait_description": [trait]} | metadata_of_trait(given, trait))
        for trait in traits
    }
    problems = {
        trait: metadata_problems(_FOUND_OUT | _with_size(each, 1))
        for trait, each in described.items()
    }
    if any(problems.values()):
        raise InputError(f"{where}: {_summed_up(problems)}.")
    return described


def _sections(given: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    sections = given.get(TRAITS) or {}
    if not isinstance(sections, Mapping) or not all(
        isinstance(section, Mapping) for section in sections.values()
    ):
        raise InputError(
            f"metadata: below '{TRAITS}:' stand names of traits, each with keys of GWAS-SSF, as "
            "trait_description, below it."
        )
    return sections


def _summed_up(problems: Mapping[str, list[str]]) -> str:
    """Say what all traits lack once, and of the rest whose it is."""
    everywhere = [
        text for text in next(iter(problems.values())) if all(text in p for p in problems.values())
    ]
    own = [
        f"trait {trait!r}: {text}"
        for trait, texts in problems.items()
        for text in texts
        if text not in everywhere
    ]
    return "; ".join([*everywhere, *own])


def completed(
    given: Mapping[str, Any], told: Mapping[str, Any] | None = None, n: int | None = None
) -> dict[str, Any]:
    """Return metadata in the order of the standard, with what the table tells; None is left out.

    Parameters
    ----------
    given : mapping
        Texts are taken for lists and for numbers where the standard has these.
    told : mapping, optional
        What the table tells; what was given goes before it.
    n : int, optional
        Size of the one sample, where it was not given.
    """
    told = told or {}
    described = {key: given.get(key, told.get(key)) for key in (*_MANDATORY, *given)}
    described = _listed({k: v for k, v in described.items() if v is not None}, _LISTS)
    if ASSEMBLY in described and not _assembly_problems(described[ASSEMBLY]):
        described[ASSEMBLY] = standard_build(described[ASSEMBLY]) or described[ASSEMBLY]
    if isinstance(samples := described.get("samples"), list | tuple):
        described["samples"] = [
            _counted(_listed(one, _SAMPLE_LISTS)) if isinstance(one, Mapping) else one
            for one in samples
        ]
    return described if n is None else _with_size(described, n)


def _listed(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {
        key: [value] if key in keys and not isinstance(value, list | tuple) else value
        for key, value in values.items()
    }


def _counted(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Return a sample with its counts as numbers, which YAML here reads as text."""
    return {
        key: int(value) if key in _SAMPLE_COUNTS and _is_count(value) else value
        for key, value in sample.items()
    }


def _is_count(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\d+", str(value)) is not None


def _with_size(described: Mapping[str, Any], n: int) -> dict[str, Any]:
    samples = described.get("samples")
    one = samples[0] if isinstance(samples, list) and len(samples) == 1 else None
    if not isinstance(one, Mapping) or one.get("sample_size") not in (None, ""):
        return dict(described)
    rest = {key: value for key, value in one.items() if key != "sample_size"}
    return {**described, "samples": [{"sample_size": n} | rest]}


def unknown_keys(given: Mapping[str, Any]) -> list[str]:
    """Return the keys that are none of the standard's."""
    return [key for key in given if key not in (*_MANDATORY, *_OPTIONAL)]


def metadata_problems(described: Mapping[str, Any]) -> list[str]:
    """Return in words what is missing in metadata, or wrong."""
    problems = []
    lacking = [key for key in _MANDATORY if described.get(key) in (None, "", [], [""])]
    if lacking:
        problems.append(f"missing {', '.join(lacking)}")
    problems += [
        f"{key} is a list, not {described[key]!r}"
        for key in _LISTS
        if key != "samples" and _is_no_list(described.get(key))
    ]
    problems += _assembly_problems(described.get(ASSEMBLY))
    problems += _sample_problems(described.get("samples") or [])
    if described.get("coordinate_system") not in ("1-based", "0-based", None):
        problems.append("coordinate_system is '1-based' or '0-based'")
    if described.get("sex") not in ("M", "F", "combined", "NR", None):
        problems.append(f"sex is M, F, combined or NR, not {described['sex']!r}")
    for key in _FLAGS:
        if not isinstance(described.get(key), bool | None):
            problems.append(f"{key} is true or false, not {described[key]!r}")
    for key, pattern, said in (
        ("gwas_id", r"GCST\d+", "GCST and digits"),
        ("date_metadata_last_modified", r"\d{4}-\d\d-\d\d", "YYYY-MM-DD"),
        ("file_type", r"GWAS-SSF v\d+(\.\d+)*", "GWAS-SSF v1.0"),
    ):
        value = described.get(key)
        if value not in (None, "") and not re.fullmatch(pattern, str(value)):
            problems.append(f"{key} {value!r} is not {said}")
    return problems


def _assembly_problems(value: Any) -> list[str]:
    try:
        standard_build(value, ASSEMBLY)
    except OptionError as error:
        return [str(error).removesuffix(".")]
    return []


def _is_no_list(value: Any) -> bool:
    return value not in (None, "") and not isinstance(value, list | tuple)


def _sample_problems(samples: Any) -> list[str]:
    if not isinstance(samples, list | tuple) or not all(isinstance(s, Mapping) for s in samples):
        return ["samples is a list of mappings"]
    problems = []
    for number, sample in enumerate(samples, start=1):
        absent = [key for key in ("sample_size", "sample_ancestry_category") if not sample.get(key)]
        if absent:
            problems.append(f"sample {number} lacks {', '.join(absent)}")
        problems += [
            f"sample {number}: {key} {sample[key]!r} is not a whole number"
            for key in _SAMPLE_COUNTS
            if sample.get(key) not in (None, "") and not _is_count(sample[key])
        ]
        problems += [
            f"sample {number}: {key} is a list, not {sample[key]!r}"
            for key in _SAMPLE_LISTS
            if _is_no_list(sample.get(key))
        ]
        if not isinstance(flag := sample.get("case_control_study"), bool | None):
            problems.append(f"sample {number}: case_control_study is true or false, not {flag!r}")
    return problems
