"""Persons guessed from names: where a warning is due, and where plain numbering must give none."""

import pytest

from dlx.data.checks.scan_names import guess_persons, scans_of


@pytest.mark.parametrize(
    ("names", "persons"),
    [
        (["pat00_s000", "pat00_s001", "pat01_s000"], ["pat00", "pat01"]),
        (["sub-01_ses-01_run-1", "sub-01_ses-02_run-1", "sub-02_ses-01_run-1"], ["sub-01", "sub-02"]),
        (["case_001_t1", "case_001_t2", "case_002_t1"], ["case_001", "case_002"]),
        (["case_001", "case_001_b", "case_002"], ["case_001", "case_002"]),
        (["P01-1", "P01-2", "P02-1"], ["P01", "P02"]),
        (["OAS1_0001_MR1", "OAS1_0001_MR2", "OAS1_0002_MR1"], ["OAS1_0001", "OAS1_0002"]),
        (["BraTS-GLI-00000-000", "BraTS-GLI-00005-000", "BraTS-GLI-00005-001"], ["BraTS-GLI-00000", "BraTS-GLI-00005"]),
        (["A0S9V9_ED", "A0S9V9_ES", "B1T2_ED"], ["A0S9V9", "B1T2"]),
        (["site1_p01_1", "site1_p01_2", "site2_p02_1"], ["site1_p01", "site2_p02"]),
        (["001.1", "001.2", "002.1"], ["001", "002"]),
        (["p1a", "p1b", "p2a"], ["p1", "p2"]),
    ],
)
def test_names_of_person_and_scan_give_the_person(names: list[str], persons: list[str]) -> None:
    guessed = guess_persons(names)
    assert list(guessed) == names
    assert sorted(scans_of(guessed)) == persons
    assert all(name.startswith(person) for name, person in guessed.items())


PLAIN = ["case_", "liver_", "hippocampus_", "subject-", "BRATS_", "la_", "BraTS20_Training_", "FLARE22_Tr_", "s", ""]


@pytest.mark.parametrize("prefix", PLAIN)
def test_plain_numbering_gives_no_persons(prefix: str) -> None:
    assert guess_persons([f"{prefix}{number:03d}" for number in range(12)]) == {}
    assert guess_persons([f"{prefix}{number}" for number in range(12)]) == {}


@pytest.mark.parametrize(
    "names",
    [
        ["site1_001", "site1_002", "site2_001"],
        ["center-3_a", "center-3_b", "center-4_a"],
        ["2019_1", "2019_2", "2020_1"],
        ["1.2.840.1.1.5", "1.2.840.1.1.6", "1.3.840.1.1.6"],
        ["sub-01_T1w", "sub-02_T1w", "sub-03_T1w"],
        ["sub-01_ses-1", "sub-02_ses-1"],
        ["utrecht_01", "utrecht_02", "singapore_01"],
        ["550e8400-e29b-41d4", "550e8401-e29b-41d4"],
        ["a", "b"],
        [],
    ],
)
def test_numbers_of_sites_years_and_identifiers_are_no_persons(names: list[str]) -> None:
    assert guess_persons(names) == {}
