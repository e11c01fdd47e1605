"""Cases of COPY: sources and where they go."""

# fmt: off
from __future__ import annotations

from collections.abc import Iterator

from tests.differential.case import (
    BK,
    BUILDAH,
    BUILDKIT,
    CLASSIC,
    DOCKER,
    STRIPS,
    TREE,
    Case,
    D,
    F,
    Fifo,
    Hard,
    L,
    busybox,
    copied,
    file,
    folder,
    link,
)
from tests.differential.trees import Entry

REPLACES = "puts the new one in its place"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
STANDING = "/t has dir, file, link → dir, soft → file, dead → nothing"
TARGETS = (
    "RUN mkdir -p /t/dir && echo old >/t/file && "
    "ln -s dir /t/link && ln -s file /t/soft && ln -s gone /t/dead\n"
)


def onto_targets() -> Iterator[Case]:
    """Every kind of source to every kind of destination."""
    sources = {"file": "f", "folder": "d", "folder-slash": "d/", "folder-dot": "d/.", "files": "f g"}
    targets = ("/t/new", "/t/new/", "/t/deep/new/", "/t/file", "/t/file/", "/t/dir", "/t/dir/", "/t/link",
    "/t/link/",
               "/t/link/in", "/t/soft", "/t/dead", "t/.")  # fmt: skip
    for kind, source in sources.items():
        for target in targets:
            several = " " in source and not target.endswith("/")
            onto_file = target == "/t/file/" or (target in ("/t/file", "/t/soft") and kind != "file")
            refused = onto_file or (several and target not in ("/t/dir", "/t/link", "t/."))
            dissent = {}
            if kind == "file" and target == "/t/soft":
                dissent = {BUILDAH: "replaces the link"}
            if kind == "file" and target == "/t/dead":
                dissent = {BUILDAH: "makes a folder of it"}
            if several and refused and target not in ("/t/file", "/t/soft"):
                dissent = {BUILDKIT: "writes one over the other", BUILDAH: "makes a folder of it"}
            elif several and refused:
                dissent = {BUILDKIT: "writes one over the other"}
            elif several:
                dissent = {CLASSIC: "wants a slash after the folder"}
            name = target.strip("/").replace("/", "-") + ("-slash" if target.endswith("/") else "")
            yield Case(
                f"copy-{kind}-to-{name}", f"COPY {source} {target}, where {STANDING}",
                f"FROM base:1\n{TARGETS}COPY {source} {target}\n", {**TREE, "g": "5"},
                error=("Dockerfile:3",) if refused else None,
                dissent=dissent,
            )  # fmt: skip


SOURCES = (
    Case("copy-file", "a file with its mode and time", busybox("COPY f /a"), {"f": F("1", 0o640)},
         golden={"a": copied("1", 0o640)}, quick=True),
    Case("copy-folder-content", "of a folder its content goes, with modes and times",
         busybox("COPY d /new"), {"d/a": F("1", 0o600), "d/e": D(0o711), "d/s/b": "2", "d/s": D(0o750)},
         golden={"new": folder(), "new/a": copied("1", 0o600), "new/e": folder(0o711), "new/s": folder(0o750),
                 "new/s/b": copied("2")}, quick=True),
    Case("copy-owner", "without --chown all is root's", busybox("COPY d /new"),
         {"d/a": F("1", owner=(1000, 1000)), "d/e": D(0o755, (5, 6))},
         golden={"new": folder(), "new/a": copied("1"), "new/e": folder()}),
    Case("copy-special-modes", "setuid, setgid and sticky stay", busybox("COPY d /new"),
         {"d/u": F("1", 0o4755), "d/g": F("1", 0o2755), "d/t": D(0o1777)},
         golden={"new": folder(), "new/u": copied("1", 0o4755), "new/g": copied("1", 0o2755),
         "new/t": folder(0o1777)},
         dissent=dict.fromkeys((CLASSIC, BUILDAH), STRIPS)),
    Case("copy-several", "several sources into a folder", busybox("COPY f d e /new/"), {**TREE},
         golden={"new": folder(), "new/f": copied("1"), "new/a": copied("4"), "new/sub": folder(),
         "new/sub/b": copied("3")}),
    Case("copy-all", "COPY . takes the whole context, Dockerfile too", "FROM scratch\nCOPY . /\n",
         {"f": "1", ".hidden": "2"},
         golden={"f": copied("1"), ".hidden": copied("2"), "Dockerfile": copied("FROM scratch\nCOPY . /\n")}),
    Case("copy-json", "the JSON form holds spaces", busybox('COPY ["a b", "c", "/x y/"]'),
         {"a b": "1", "c": "2"},
         golden={"x y": folder(), "x y/a b": copied("1"), "x y/c": copied("2")}, quick=True),
    Case("copy-above", "leading slashes and .. end at the context's root",
         busybox("COPY ../f /../d/a //e/./a /new/"), TREE, knows=(BUILDKIT, BUILDAH),
         golden={"new": folder(), "new/f": copied("1"), "new/a": copied("4")}),
    Case("copy-slash", "a leading slash is the context's root", busybox("COPY /f /new"), TREE,
         golden={"new": copied("1")}),
    Case("copy-star", "* matches within a folder", busybox("COPY *.txt d/*.txt /new/"),
         {"a.txt": "1", "b.md": "2", "d/c.txt": "3", "d/e/f.txt": "4"},
         golden={"new": folder(), "new/a.txt": copied("1"), "new/c.txt": copied("3")}, quick=True),
    Case("copy-question", "? matches one character", busybox("COPY hom?.txt /new/"),
         {"home.txt": "1", "homes.txt": "2", "hom.txt": "3"},
         golden={"new": folder(), "new/home.txt": copied("1")}),
    Case("copy-class", "[] matches a class, and quotes", busybox("COPY arr[[]0].txt [a-c]1 [^a-c]2 /new/"),
         {"arr[0].txt": "1", "b1": "2", "d1": "3", "b2": "4", "d2": "5"},
         golden={"new": folder(), "new/arr[0].txt": copied("1"), "new/b1": copied("2"),
         "new/d2": copied("5")},
         dissent={BUILDAH: "finds no name with quoted brackets"}),
    Case("copy-star-folders", "a wildcard that matches folders copies their contents",
         busybox("COPY d* /new/"),
         {"d1/a": "1", "d2/b": "2", "d3": "3"},
         golden={"new": folder(), "new/a": copied("1"), "new/b": copied("2"), "new/d3": copied("3")}),
    Case("copy-star-one", "a wildcard that matches one file may name it anew", busybox("COPY *.txt /new"),
         {"a.txt": "1"},
         golden={"new": copied("1")}),
    Case("copy-star-hidden", "* matches names that begin with a dot", busybox("COPY d/* /new/"),
         {"d/.a": "1", "d/b": "2"},
         golden={"new": folder(), "new/.a": copied("1"), "new/b": copied("2")}),
    Case("copy-star-of-folder", "a wildcard in a folder's name", busybox("COPY */a /new/"),
         {"d/a": "1", "e/b": "2"},
         golden={"new": folder(), "new/a": copied("1")}),
    Case("copy-link-in-folder", "links within a copied folder stay links", busybox("COPY d /new"),
         {"d/a": "1", "d/l": L("a"), "d/out": L("/etc/passwd"), "d/dead": L("none")},
         golden={"new": folder(), "new/a": copied("1"), "new/l": link("a"), "new/out": link("/etc/passwd"),
         "new/dead": link("none")}),
    Case("copy-link-source", "a link named as the source is followed", busybox("COPY l /new"),
         {"f": "1", "l": L("f")},
         golden={"new": copied("1")}),
    Case("copy-link-source-folder", "one to a folder: its content", busybox("COPY l /new/"),
         {"d/a": "1", "l": L("d")},
         golden={"new": folder(), "new/a": copied("1")}),
    Case("copy-link-on-the-way", "one on the way to the source", busybox("COPY l/a /new"),
         {"d/a": "1", "l": L("d")},
         golden={"new": copied("1")}),
    Case("copy-link-absolute", "an absolute link is one within the context", busybox("COPY l /new"),
         {"d/a": "1", "l": L("/d/a")}, knows=DOCKER,
         golden={"new": copied("1")}),
    Case("copy-link-outside", "a link can't lead out of the context", busybox("COPY l /new"),
         {"l": L("../../../../../../../etc/passwd")},
         error=("l is",)),
    Case("copy-link-matched", "links that a wildcard matches", busybox("COPY l* /new/"),
         {"f": "1", "l1": L("f"), "l2": "2"},
         knows=(BUILDKIT, BUILDAH)),
    Case("copy-hard-links", "names of one file stay one file", busybox("COPY d /new"),
         {"d/a": "1", "d/b": Hard("d/a"), "d/c": "1"},
         golden={"new": folder(), "new/c": copied("1"),
         **dict.fromkeys(("new/a", "new/b"), copied("1")._replace(twin="new/a"))},
         knows=BK),
    Case("copy-hard-links-apart", "what several sources, or a wildcard, name is copied for itself",
         busybox("COPY d/a d/b d/c* /new/"),
         {"d/a": "1", "d/b": Hard("d/a"), "d/c1": "1", "d/c2": Hard("d/c1")}, knows=(BUILDKIT,),
         golden={"new": folder(), **dict.fromkeys(("new/a", "new/b", "new/c1", "new/c2"), copied("1"))}),
    Case("copy-fifo", "a named pipe", busybox("COPY d /new"), {"d/a": "1", "d/p": Fifo()},
         golden={"new": folder(), "new/a": copied("1"), "new/p": Entry("fifo", 0o644, 0, 0)},
         dissent={BUILDKIT: "leaves it out (BuildKit of today does not)"}),
    Case("copy-capability", "a file's capabilities go", busybox("COPY f /new"),
         {"f": F("1", xattrs={"security.capability": CAPABILITY})},
         golden={"new": copied("1")},
         dissent={BUILDAH: "keeps them"}),
    Case("copy-xattr", "a file's attributes go", busybox("COPY f /new"),
         {"f": F("1", xattrs={"user.note": b"x"})},
         golden={"new": copied("1")},
         dissent={BUILDAH: "keeps them"}),
    Case("copy-odd-names", "names with any characters", busybox("COPY d /new"),
         {"d/a b": "1", "d/ä": "2", "d/-rf": "3", "d/x\ny": "4", "d/$a": "5", "d/*": "6"},
         golden={"new": folder(), "new/a b": copied("1"), "new/ä": copied("2"), "new/-rf": copied("3"),
         "new/x\ny": copied("4"),
                 "new/$a": copied("5"), "new/*": copied("6")}),
    Case("copy-old-times", "times before 1970 and beyond 2038 stay", busybox("COPY d /new"),
         {"d/a": F("1", mtime=0), "d/b": F("2", mtime=1)},
         golden={"new": folder(), "new/a": file("1", mtime=0), "new/b": file("2", mtime=1)}),
    Case("copy-empty-folder", "an empty folder makes the destination", busybox("COPY d /new"),
         {"d": D(0o700)}),
    Case("copy-folder-mode", "a new destination gets mode 755, or the folder's own", busybox("COPY d /new"),
         {"d": D(0o700), "d/a": "1"}),
    Case("copy-merge", "a folder merges into one that is there",
         busybox("RUN mkdir -m 700 /new && mkdir -m 711 /new/s && echo x >/new/a && echo y >/new/b\n"
         "COPY d /new"),
         {"d/a": "1", "d/s/c": "2", "d/s": D(0o750)}),
    Case("copy-file-over-link", "a file over a link within a folder replaces the link",
         busybox("RUN mkdir /new && echo x >/new/real && ln -s real /new/a\nCOPY d /new"), {"d/a": "1"}),
    Case("copy-folder-over-link", "a folder over a link to a folder",
         busybox("RUN mkdir -p /new/real && ln -s real /new/s\nCOPY d /new"),
         {"d/s/a": "1"},
         error=("Dockerfile:3",),
         dissent=dict.fromkeys((CLASSIC, BUILDAH), REPLACES)),
    Case("copy-link-over-file", "a link over a file replaces it",
         busybox("RUN mkdir /new && echo x >/new/l\nCOPY d /new"), {"d/l": L("a"), "d/a": "1"},
         golden={"new": folder(), "new/l": link("a"), "new/a": copied("1")}),
    Case("copy-folder-over-file", "a folder within over a file",
         busybox("RUN mkdir /new && echo x >/new/s\nCOPY d /new"), {"d/s/a": "1"},
         error=("Dockerfile:3",),
         dissent=dict.fromkeys((CLASSIC, BUILDAH), REPLACES)),
    Case("copy-file-over-folder", "a file within over a folder", busybox("RUN mkdir -p /new/a\nCOPY d /new"),
         {"d/a": "1"},
         error=("Dockerfile:3",),
         dissent=dict.fromkeys((CLASSIC, BUILDAH), REPLACES)),
    Case("copy-workdir", "a relative destination is under WORKDIR",
         busybox("WORKDIR /w\nCOPY f x/\nCOPY f .\nCOPY f ./y"), TREE,
         golden={"w": folder(), "w/x": folder(), "w/x/f": copied("1"), "w/f": copied("1"),
         "w/y": copied("1")}),
    Case("copy-dots-in-target", "dots in the destination", busybox("COPY f /a/../b/./c"), TREE,
         golden={"b": folder(), "b/c": copied("1")}),
    Case("copy-above-root", "a destination can't lead above the root",
         busybox("WORKDIR /w\nCOPY f ../../../c"), TREE, golden={"w": folder(), "c": copied("1")}),
    Case("copy-target-link-absolute", "an absolute link in the destination is one within the image",
         busybox("RUN mkdir /real && ln -s /real /t\nCOPY f /t/x/"), TREE,
         golden={"real": folder(), "t": link("/real"), "real/x": folder(), "real/x/f": copied("1")},
         quick=True),
    Case("copy-target-link-above", "one that leads above the root ends at it",
         busybox("RUN mkdir /real && ln -s ../../../../real /t\nCOPY f /t/"), TREE,
         golden={"real": folder(), "t": link("../../../../real"), "real/f": copied("1")}),
    Case("copy-target-link-dead", "a folder behind a link that leads nowhere is made",
         busybox("RUN ln -s /gone /t\nCOPY f /t/x"), TREE),
    Case("copy-scratch", "into nothing", "FROM scratch\nCOPY f /a/b/\n", TREE,
         golden={"a": folder(), "a/b": folder(), "a/b/f": copied("1")}, quick=True),
    Case("copy-empty-file", "an empty file", busybox("COPY f /f"), {"f": ""}, golden={"f": copied("")}),
    Case("copy-same-name", "of two of a name the later one counts", busybox("COPY x/a y/a /new/"),
         {"x/a": "1", "y/a": "2"},
         golden={"new": folder(), "new/a": copied("2")}),
    Case("copy-onto-root", "a folder into /, over the base's own", busybox("COPY d /"),
         {"d/etc/new": "1", "d/bin/mine": F("2", 0o755)},
         golden={"etc/new": copied("1"), "bin/mine": copied("2", 0o755)}),
)


CASES = (*onto_targets(), *SOURCES)
