"""Finding out what columns mean, by the names that tools give them."""

import logging

import pytest

from plait.errors import (
    AmbiguousAlleleColumnsError,
    LabelError,
    OptionError,
    UnknownDialectError,
)
from plait.io.dialects import DIALECTS, ROLES, find_roles


def whole(dialect):
    return [name.replace("*", "A") for name, _, _ in dialect.columns]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_every_dialect_is_found_by_its_own_columns(dialect):
    assert {role for _, role, _ in dialect.columns} - {""} <= ROLES
    header = whole(dialect)
    if dialect.confirmed:
        found, roles = find_roles(header)
        assert found == dialect.name and roles == dialect.roles(header, "A")
    else:
        with pytest.raises(UnknownDialectError, match=f"dialect='{dialect.name}'"):
            find_roles(header)


def test_an_unconfirmed_dialect_is_used_when_asked_for(caplog):
    header = ["MarkerName", "Allele1", "Allele2", "Effect", "StdErr", "P-value", "Direction"]
    with caplog.at_level(logging.WARNING, "plait.io"):
        _, roles = find_roles(header, "metal")
    assert roles["ea"] == "Allele1" and "not confirmed on a file" in caplog.text
    with pytest.raises(UnknownDialectError, match="columns="):
        find_roles(header)


@pytest.mark.parametrize(
    ("header", "ea", "oa"),
    [
        # Which one a tool's effect is of, in the tools that differ most.
        ("CHR POS MarkerID Allele1 Allele2 AC_Allele2 AF_Allele2 MissingRate BETA SE Tstat var "
         "p.value N", "Allele2", "Allele1"),
        ("CHROM GENPOS ID ALLELE0 ALLELE1 A1FREQ INFO N TEST BETA SE CHISQ LOG10P EXTRA",
         "ALLELE1", "ALLELE0"),
        ("SNP CHR BP ALLELE1 ALLELE0 A1FREQ BETA SE P_BOLT_LMM_INF", "ALLELE1", "ALLELE0"),
        ("alternate_ids rsid chromosome position alleleA alleleB info frequentist_add_pvalue "
         "frequentist_add_beta_1 frequentist_add_se_1", "alleleB", "alleleA"),
        ("CHR SNP POS A1 A2 N AF1 BETA SE P", "A1", "A2"),
        ("SNP A1 A2 N Z", "A1", "A2"),
    ],
)  # fmt: skip
def test_the_effect_allele_of_each_tool(header, ea, oa):
    _, roles = find_roles(header.split())
    assert roles["ea"] == ea and roles["oa"] == oa


def test_bolt_prefers_the_better_p():
    header = [
        "SNP",
        "CHR",
        "BP",
        "ALLELE1",
        "ALLELE0",
        "A1FREQ",
        "BETA",
        "SE",
        "P_BOLT_LMM_INF",
        "P_BOLT_LMM",
    ]
    assert find_roles(header)[1]["p"] == "P_BOLT_LMM"
    assert find_roles(header[:-1])[1]["p"] == "P_BOLT_LMM_INF"


def test_usual_names():
    found, roles = find_roles(
        ["Chr", "bp", "Effect_Allele", "Other_Allele", "EAF", "b", "StdErr", "pval", "rsID"]
    )
    assert found == "aliases"
    assert roles == {
        "chrom": "Chr", "pos": "bp", "ea": "Effect_Allele", "oa": "Other_Allele", "eaf": "EAF",
        "beta": "b", "se": "StdErr", "p": "pval", "rsid": "rsID",
    }  # fmt: skip
    assert find_roles(["chrom", "pos", "ref", "alt", "beta", "se"])[1]["ea"] == "alt"
    roles = find_roles(["chrom", "pos", "ref", "alt", "effect_allele", "beta", "se"])[1]
    assert (roles["ref"], roles["alt"], roles["ea"]) == ("ref", "alt", "effect_allele")
    roles = find_roles(["chrom", "pos", "allele0", "allele1", "beta", "se"])[1]
    assert roles["ea"] == "allele1" and roles["oa"] == "allele0"
    assert "ea" not in find_roles(["snp", "z"])[1]


def test_alleles_that_a_header_does_not_tell():
    with pytest.raises(AmbiguousAlleleColumnsError, match="Allele1, Allele2"):
        find_roles(["snp", "Allele1", "Allele2", "beta", "se"])
    with pytest.raises(AmbiguousAlleleColumnsError, match="columns="):
        find_roles(["snp", "a1", "alt", "ref", "beta", "se"])
    given = {"ea": "Allele2", "oa": "Allele1", "beta": "beta", "se": "se"}
    assert find_roles(["snp", "Allele1", "Allele2", "beta", "se"], columns=given) == (
        "columns",
        given,
    )


def test_what_is_refused():
    with pytest.raises(UnknownDialectError, match="several columns that may be p"):
        find_roles(["snp", "ea", "beta", "p", "pval"])
    with pytest.raises(UnknownDialectError, match="columns="):
        find_roles(["one", "two"])
    with pytest.raises(OptionError, match="unknown dialect"):
        find_roles(["snp"], "plonk")
    with pytest.raises(UnknownDialectError, match="not of the dialect"):
        find_roles(["snp"], "metal")
    with pytest.raises(OptionError, match="unknown role"):
        find_roles(["snp"], columns={"effect": "snp"})
    with pytest.raises(LabelError, match="no column 'x'"):
        find_roles(["snp"], columns={"beta": "x"})


def test_two_dialects_that_fit_equally(monkeypatch):
    from plait.io import dialects

    twin = dialects.Dialect("twin", dialects.DIALECTS[-1].layout, "a file")
    monkeypatch.setattr(dialects, "DIALECTS", (*dialects.DIALECTS, twin))
    with pytest.raises(UnknownDialectError, match="plait and twin equally"):
        find_roles(whole(twin))


def test_given_columns_go_before_a_dialects():
    header = ["MarkerName", "Allele1", "Allele2", "Effect", "StdErr", "P-value", "Direction", "x"]
    assert find_roles(header, "metal", {"n": "x"})[1]["n"] == "x"
