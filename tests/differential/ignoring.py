"""Cases of .dockerignore."""

# fmt: off
from __future__ import annotations

from tests.differential.case import (
    BUILDKIT,
    Case,
    busybox,
    copied,
    file,
    folder,
)


def ignored(name: str, rule: str, patterns: str, kept: str, *, quick: bool = False, bare: str = "",
            context: dict[str, str] | None = None, where: str = ".dockerignore") -> Case:  # fmt: skip
    """`kept`: the files that arrive, in words; `bare`: folders without any."""
    files = context or dict.fromkeys(["a", "b.md", "c.md", "README.md", "d/a", "d/b.md", "d/e/a", "d/e/b.md",
    "x/y/z/t", "temp", "tempo", "d/temp"], "1")
    folders = {"/".join(n.split("/")[:i]) for n in kept.split() for i in range(1, n.count("/") + 1)}
    folders |= set(bare.split())
    golden = {f"c/{n}": copied(files[n]) for n in kept.split()} | {f"c/{n}": folder() for n in folders}
    text = "FROM scratch\nCOPY . /c\n"
    golden["c"] = folder()
    if not patterns.startswith("*\n"):
        golden |= {} if "Dockerfile" in patterns else {"c/Dockerfile": copied(text)}
        golden |= {} if where in patterns else {f"c/{where}": copied(patterns)}
    return Case(f"ignore-{name}", rule, text, {**files, where: patterns}, golden=golden, quick=quick)


CASES = (
    ignored("names", "names at the root", "a\ntemp\n.dockerignore\n",
    "b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t tempo d/temp"),
    ignored("star", "* within one folder", "*.md\n*/temp*\n.dockerignore\n",
    "a d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo", quick=True),
    ignored("star-star", "** at any depth", "**/*.md\n.dockerignore\n",
    "a d/a d/e/a x/y/z/t temp tempo d/temp"),
    ignored("question", "? is one character", "temp?\n.dockerignore\n",
    "a b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp d/temp"),
    ignored("folder", "a folder with all below", "d\n.dockerignore\n",
    "a b.md c.md README.md x/y/z/t temp tempo"),
    ignored("except", "! takes it back, the last line that matches counts",
    "*.md\n!README.md\n.dockerignore\n", "a README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp",
    quick=True),
    ignored("except-order", "an exclusion after ! has the last word",
    "*.md\n!README.md\nREADME*\n.dockerignore\n", "a d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp"),
    ignored("except-in-folder", "! in an excluded folder", "d\n!d/e/a\n.dockerignore\n",
    "a b.md c.md README.md d/e/a x/y/z/t temp tempo"),
    ignored("everything-but", "* and exceptions", "*\n!a\n!d/*.md\n", "a d/b.md"),
    ignored("slashes", "slashes around and dots are cleaned", "/a\nd/\n./temp\nx/../tempo\n.dockerignore\n",
    "b.md c.md README.md x/y/z/t"),
    ignored("comments", "lines that begin with # and empty ones are nothing",
    "# a\n\n   \na   \n.dockerignore\n", "b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo "
    "d/temp"),
    ignored("star-star-middle", "** in the middle", "x/**/t\nd/**/a\n.dockerignore\n",
    "a b.md c.md README.md d/b.md d/e/b.md temp tempo d/temp", bare="x x/y x/y/z"),
    ignored("dockerfile", "Dockerfile and .dockerignore can be excluded, and are used all the same",
    "Dockerfile\n.dockerignore\n",
            "a b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp"),
    ignored("crlf-bom", "CR LF and a byte order mark", "\ufeffa\r\ntemp\r\n.dockerignore\r\n",
    "b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t tempo d/temp"),
    Case("ignore-source-excluded", "an excluded source is not there", busybox("COPY a /"),
         {"a": "1", ".dockerignore": "a\n"}, error=("a",)),
    Case("ignore-own-file", "DOCKERFILE.dockerignore comes first", "FROM scratch\nCOPY . /c\n",
         {"a": "1", "b": "2", ".dockerignore": "a\n", "own.dockerignore": "b\nown*\n.dockerignore\n"},
         file="own", knows=(BUILDKIT,),
         golden={"c": folder(), "c/a": copied("1")}),
    Case("ignore-not-for-stages", "it is not for --from",
         "FROM base:1 AS one\nRUN echo 1 >/a\nFROM scratch\nCOPY --from=one /a /\n",
         {".dockerignore": "a\n"}, golden={"a": file("1\n")}),
    Case("ignore-parent-made", "folders above what is kept are there", "FROM scratch\nCOPY d /c\n",
         {"d/e/f/a": "1", "d/x": "2", ".dockerignore": "d\n!d/e/f/a\n"},
         golden={"c": folder(), "c/e": folder(), "c/e/f": folder(), "c/e/f/a": copied("1")}),
)
