"""docs/dockerfile.md names every rule that the code has, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from image.dockerfile.flags import MAX_REPEATED
from image.dockerfile.instructions import MAX_ENTRIES
from image.dockerfile.lines import MAX_LINE, MAX_SIZE
from image.dockerfile.parser import MAX_HEREDOCS, MAX_INSTRUCTIONS

ROOT = Path(__file__).resolve().parents[3]


def codes() -> set[str]:
    """First arguments of `warned` and `warn`, and `code=` of Warned."""
    found: set[str] = set()
    for path in (ROOT / "image" / "dockerfile").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func).rpartition(".")[2]
            values = [
                keyword.value for keyword in call.keywords if keyword.arg == "code" and name == "Warned"
            ]
            values += call.args[:1] if name in ("warned", "warn") else []
            found |= {str(value.value) for value in values if isinstance(value, ast.Constant)}
    return found


def test_every_rule_is_documented_and_every_documented_rule_exists() -> None:
    rows = re.findall(r"^\| `([A-Z]\w+)` \|", (ROOT / "docs" / "dockerfile.md").read_text(), re.MULTILINE)
    assert rows, "no table of rules"
    assert len(rows) == len(set(rows))
    assert set(rows) == codes()


def test_documented_limits_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "dockerfile.md").read_text()
    assert MAX_SIZE == 1 << 20
    for limit in (
        f"{MAX_LINE:,}",
        f"{MAX_INSTRUCTIONS:,}",
        f"{MAX_HEREDOCS} heredocs",
        f"{MAX_REPEATED} mounts",
    ):
        assert limit in text
    assert f"{MAX_ENTRIES} variables" in text
