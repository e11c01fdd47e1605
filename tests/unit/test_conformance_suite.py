"""How the verdicts of a foreign suite are read and held against its table. Pure."""

from __future__ import annotations

from tests.conformance import gotests
from tests.conformance.described import PAGE, page
from tests.conformance.suite import PASSED, Expected, Verdict, count, verdicts, violations

REPORT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.a.One" name="test_fine" time="1"/>
<testcase classname="tests.a.One" name="test_bad"><failure message="no such thing">lines</failure></testcase>
<testcase classname="tests.a.One" name="test_left"><skipped message="not here"/></testcase>
<testcase classname="tests.a.One" name="test_twice"/>
<testcase classname="tests.a.One" name="test_twice"><error message="tear-down"/></testcase>
</testsuite></testsuites>"""


def test_verdicts_of_a_report_are_each_cases_worst() -> None:
    found = verdicts(REPORT)
    assert {name.rpartition(".")[2]: verdict.outcome for name, verdict in found.items()} == {
        "test_fine": "passed",
        "test_bad": "failed",
        "test_left": "skipped",
        "test_twice": "error",
    }
    assert found["tests.a.One.test_bad"].words == "no such thing"
    assert count(found) == 1 and count(found, "failed") == 1


def test_violations_of_a_case_that_failed_unlisted_name_it_with_its_words() -> None:
    found = {"a": Verdict(PASSED), "b": Verdict("failed", "so\n it said"), "c": Verdict("skipped", "why")}
    assert violations(found, Expected()) == [
        "failed, and not listed: b: so it said",
        "skipped, and not listed: c: why",
    ]
    assert violations(found, Expected({"b": "known", "c": "known"})) == []


def test_violations_of_a_table_that_says_too_much_name_what_is_not_so() -> None:
    found = {"a": Verdict(PASSED)}
    assert violations(found, Expected({"a": "old", "z": "gone"})) == [
        "listed, but there is no such case: z",
        "passed, though listed (old): a",
    ]


def test_page_of_what_is_not_passed_is_made_of_the_tables() -> None:
    again = "python -m tests.conformance.described docs/docker-conformance.md"
    assert PAGE.read_text() == page(), again


def test_go_tests_count_by_what_they_hold_and_one_without_an_end_is_an_error() -> None:
    printed = """\
=== RUN   TestA
=== RUN   TestA/one
    x_test.go:1: why
        and more
=== RUN   TestA/two
--- FAIL: TestA (0.10s)
    --- FAIL: TestA/one (0.10s)
    --- PASS: TestA/two (0.00s)
=== RUN   TestB
--- SKIP: TestB (0.00s)
=== RUN   TestC
panic: it ended
"""
    found = gotests.verdicts(printed)
    assert {name: verdict.outcome for name, verdict in found.items()} == {
        "TestA/one": "failed", "TestA/two": "passed", "TestB": "skipped", "TestC": "error",
    }  # fmt: skip
    assert found["TestA/one"].words == "    x_test.go:1: why\n        and more"
    assert found["TestC"].words == "panic: it ended"
