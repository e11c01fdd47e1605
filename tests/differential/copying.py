"""Cases of COPY, ADD and .dockerignore."""

from __future__ import annotations

from collections.abc import Iterator

from tests.differential.case import (
    ALL,
    BUILDAH,
    BUILDKIT,
    DOCKER,
    Case,
    D,
    F,
    Fifo,
    Hard,
    L,
    archive,
    busybox,
    copied,
    file,
    folder,
    link,
    tar_of,
)

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
TARGETS = "RUN mkdir -p /t/dir && echo old >/t/file && ln -s dir /t/link && ln -s file /t/soft && ln -s gone /t/dead\n"
TREE = {"f": "1", "d/a": "2", "d/sub/b": "3", "e/a": "4"}


def onto_targets() -> Iterator[Case]:
    """Every kind of source to every kind of destination."""
    sources = {"file": "f", "folder": "d", "folder-slash": "d/", "folder-dot": "d/.", "files": "f g"}
    targets = ("/t/new", "/t/new/", "/t/deep/new/", "/t/file", "/t/file/", "/t/dir", "/t/dir/", "/t/link", "/t/link/",
               "/t/link/in", "/t/soft", "/t/dead", "t/.")  # fmt: skip
    for kind, source in sources.items():
        for target in targets:
            several_to_file = " " in source and not target.endswith(("/", "/."))
            onto_file = target in ("/t/file/",) or (target in ("/t/file", "/t/soft") and kind != "file")
            refused = several_to_file or onto_file
            name = target.strip("/").replace("/", "-") + ("-slash" if target.endswith("/") else "")
            yield Case(
                f"copy-{kind}-to-{name}", f"COPY {source} {target}: what is there, links and slashes decide",
                f"FROM base:1\n{TARGETS}COPY {source} {target}\n", {**TREE, "g": "5"},
                error=("Dockerfile:3",) if refused else None,
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
         golden={"new": folder(), "new/u": copied("1", 0o4755), "new/g": copied("1", 0o2755), "new/t": folder(0o1777)}),
    Case("copy-several", "several sources into a folder", busybox("COPY f d e /new/"), {**TREE},
         golden={"new": folder(), "new/f": copied("1"), "new/a": copied("4"), "new/sub": folder(), "new/sub/b": copied("3")}),
    Case("copy-all", "COPY . takes the whole context, Dockerfile too", "FROM scratch\nCOPY . /\n", {"f": "1", ".hidden": "2"},
         golden={"f": copied("1"), ".hidden": copied("2"), "Dockerfile": copied("FROM scratch\nCOPY . /\n")}),
    Case("copy-json", "the JSON form holds spaces", busybox('COPY ["a b", "c", "/x y/"]'), {"a b": "1", "c": "2"},
         golden={"x y": folder(), "x y/a b": copied("1"), "x y/c": copied("2")}, quick=True),
    Case("copy-above", "leading slashes and .. end at the context's root", busybox("COPY ../f /../d/a //e/./a /new/"), TREE, knows=(BUILDKIT, BUILDAH),
         golden={"new": folder(), "new/f": copied("1"), "new/a": copied("4")}),
    Case("copy-slash", "a leading slash is the context's root", busybox("COPY /f /new"), TREE, golden={"new": copied("1")}),
    Case("copy-star", "* matches within a folder", busybox("COPY *.txt d/*.txt /new/"), {"a.txt": "1", "b.md": "2", "d/c.txt": "3", "d/e/f.txt": "4"},
         golden={"new": folder(), "new/a.txt": copied("1"), "new/c.txt": copied("3")}, quick=True),
    Case("copy-question", "? matches one character", busybox("COPY hom?.txt /new/"), {"home.txt": "1", "homes.txt": "2", "hom.txt": "3"},
         golden={"new": folder(), "new/home.txt": copied("1")}),
    Case("copy-class", "[] matches a class, and quotes", busybox("COPY arr[[]0].txt [a-c]1 [^a-c]2 /new/"),
         {"arr[0].txt": "1", "b1": "2", "d1": "3", "b2": "4", "d2": "5"},
         golden={"new": folder(), "new/arr[0].txt": copied("1"), "new/b1": copied("2"), "new/d2": copied("5")}),
    Case("copy-star-folders", "a wildcard that matches folders copies their contents", busybox("COPY d* /new/"),
         {"d1/a": "1", "d2/b": "2", "d3": "3"},
         golden={"new": folder(), "new/a": copied("1"), "new/b": copied("2"), "new/d3": copied("3")}),
    Case("copy-star-one", "a wildcard that matches one file may name it anew", busybox("COPY *.txt /new"), {"a.txt": "1"},
         golden={"new": copied("1")}),
    Case("copy-star-hidden", "* matches names that begin with a dot", busybox("COPY d/* /new/"), {"d/.a": "1", "d/b": "2"},
         golden={"new": folder(), "new/.a": copied("1"), "new/b": copied("2")}),
    Case("copy-star-of-folder", "a wildcard in a folder's name", busybox("COPY */a /new/"), {"d/a": "1", "e/b": "2"},
         golden={"new": folder(), "new/a": copied("1")}),
    Case("copy-link-in-folder", "links within a copied folder stay links", busybox("COPY d /new"),
         {"d/a": "1", "d/l": L("a"), "d/out": L("/etc/passwd"), "d/dead": L("none")},
         golden={"new": folder(), "new/a": copied("1"), "new/l": link("a"), "new/out": link("/etc/passwd"), "new/dead": link("none")}),
    Case("copy-link-source", "a link named as the source is followed", busybox("COPY l /new"), {"f": "1", "l": L("f")},
         golden={"new": copied("1")}),
    Case("copy-link-source-folder", "one to a folder: its content", busybox("COPY l /new/"), {"d/a": "1", "l": L("d")},
         golden={"new": folder(), "new/a": copied("1")}),
    Case("copy-link-on-the-way", "one on the way to the source", busybox("COPY l/a /new"), {"d/a": "1", "l": L("d")},
         golden={"new": copied("1")}),
    Case("copy-link-absolute", "an absolute link is one within the context", busybox("COPY l /new"), {"d/a": "1", "l": L("/d/a")}, knows=DOCKER,
         golden={"new": copied("1")}),
    Case("copy-link-outside", "a link can't lead out of the context", busybox("COPY l /new"), {"l": L("../../../../../../../etc/passwd")},
         error=("passwd",)),
    Case("copy-link-matched", "links that a wildcard matches", busybox("COPY l* /new/"), {"f": "1", "l1": L("f"), "l2": "2"},
         knows=(BUILDKIT, BUILDAH)),
    Case("copy-hard-links", "names of one file become files of their own", busybox("COPY d /new"), {"d/a": "1", "d/b": Hard("d/a")}, knows=(BUILDKIT,)),
    Case("copy-fifo", "a named pipe", busybox("COPY d /new"), {"d/a": "1", "d/p": Fifo()}),
    Case("copy-capability", "a file's capabilities stay", busybox("COPY f /new"), {"f": F("1", xattrs={"security.capability": CAPABILITY})}),
    Case("copy-xattr", "a file's own attributes", busybox("COPY f /new"), {"f": F("1", xattrs={"user.note": b"x"})}),
    Case("copy-odd-names", "names with any characters", busybox("COPY d /new"), {"d/a b": "1", "d/ä": "2", "d/-rf": "3", "d/x\ny": "4", "d/$a": "5", "d/*": "6"},
         golden={"new": folder(), "new/a b": copied("1"), "new/ä": copied("2"), "new/-rf": copied("3"), "new/x\ny": copied("4"),
                 "new/$a": copied("5"), "new/*": copied("6")}),
    Case("copy-old-times", "times before 1970 and beyond 2038 stay", busybox("COPY d /new"), {"d/a": F("1", mtime=0), "d/b": F("2", mtime=1)},
         golden={"new": folder(), "new/a": file("1", mtime=0), "new/b": file("2", mtime=1)}),
    Case("copy-empty-folder", "an empty folder makes the destination", busybox("COPY d /new"), {"d": D(0o700)}),
    Case("copy-folder-mode", "a new destination gets mode 755, or the folder's own", busybox("COPY d /new"), {"d": D(0o700), "d/a": "1"}),
    Case("copy-merge", "a folder merges into one that is there, whose own mode and files stay or are replaced",
         busybox("RUN mkdir -m 700 /new && mkdir -m 711 /new/s && echo x >/new/a && echo y >/new/b\nCOPY d /new"),
         {"d/a": "1", "d/s/c": "2", "d/s": D(0o750)}),
    Case("copy-file-over-link", "a file over a link within a folder replaces the link",
         busybox("RUN mkdir /new && echo x >/new/real && ln -s real /new/a\nCOPY d /new"), {"d/a": "1"}),
    Case("copy-folder-over-link", "a folder over a link to a folder", busybox("RUN mkdir -p /new/real && ln -s real /new/s\nCOPY d /new"),
         {"d/s/a": "1"}),
    Case("copy-link-over-file", "a link over a file replaces it", busybox("RUN mkdir /new && echo x >/new/l\nCOPY d /new"), {"d/l": L("a"), "d/a": "1"},
         golden={"new": folder(), "new/l": link("a"), "new/a": copied("1")}),
    Case("copy-folder-over-file", "a folder within over a file", busybox("RUN mkdir /new && echo x >/new/s\nCOPY d /new"), {"d/s/a": "1"}),
    Case("copy-file-over-folder", "a file within over a folder", busybox("RUN mkdir -p /new/a\nCOPY d /new"), {"d/a": "1"}),
    Case("copy-workdir", "a relative destination is under WORKDIR", busybox("WORKDIR /w\nCOPY f x/\nCOPY f .\nCOPY f ./y"), TREE,
         golden={"w": folder(), "w/x": folder(), "w/x/f": copied("1"), "w/f": copied("1"), "w/y": copied("1")}),
    Case("copy-dots-in-target", "dots in the destination", busybox("COPY f /a/../b/./c"), TREE, golden={"b": folder(), "b/c": copied("1")}),
    Case("copy-above-root", "a destination can't lead above the root", busybox("WORKDIR /w\nCOPY f ../../../c"), TREE, golden={"w": folder(), "c": copied("1")}),
    Case("copy-target-link-absolute", "an absolute link in the destination is one within the image",
         busybox("RUN mkdir /real && ln -s /real /t\nCOPY f /t/x/"), TREE,
         golden={"real": folder(), "t": link("/real"), "real/x": folder(), "real/x/f": copied("1")}, quick=True),
    Case("copy-target-link-above", "one that leads above the root ends at it",
         busybox("RUN mkdir /real && ln -s ../../../../real /t\nCOPY f /t/"), TREE,
         golden={"real": folder(), "t": link("../../../../real"), "real/f": copied("1")}),
    Case("copy-target-link-dead", "a folder behind a link that leads nowhere is made", busybox("RUN ln -s /gone /t\nCOPY f /t/x"), TREE),
    Case("copy-scratch", "into nothing", "FROM scratch\nCOPY f /a/b/\n", TREE, golden={"a": folder(), "a/b": folder(), "a/b/f": copied("1")}, quick=True),
    Case("copy-empty-file", "an empty file", busybox("COPY f /f"), {"f": ""}, golden={"f": copied("")}),
    Case("copy-same-name", "of two of a name the later one counts", busybox("COPY x/a y/a /new/"), {"x/a": "1", "y/a": "2"},
         golden={"new": folder(), "new/a": copied("2")}),
    Case("copy-onto-root", "a folder into /, over the base's own", busybox("COPY d /"), {"d/etc/new": "1", "d/bin/mine": F("2", 0o755)},
         golden={"etc/new": copied("1"), "bin/mine": copied("2", 0o755)}),
)

FLAGS = (
    *(
        Case(f"chown-{name}", f"--chown={words}", busybox(f"COPY --chown={words} d /new/"), {"d/a": F("1", 0o600), "d/s/b": "2"},
             golden={"new": folder(owner=owner), "new/a": copied("1", 0o600, owner), "new/s": folder(owner=owner),
                     "new/s/b": copied("2", owner=owner)}, quick=name == "names")
        for name, words, owner in (
            ("names", "app:users", (1000, 100)), ("name", "app", (1000, 1001)), ("ids", "55:66", (55, 66)),
            ("id", "55", (55, 55)), ("mixed", "55:users", (55, 100)), ("name-and-id", "app:7", (1000, 7)), ("known-id", "1000", (1000, 1000)),
        )
    ),
    Case("chown-variable", "with variables", busybox("ARG o=app\nENV g=users\nCOPY --chown=$o:${g} f /f"), TREE, golden={"f": copied("1", owner=(1000, 100))}),
    Case("chown-parents", "folders that are made on the way are root's or the owner's", busybox("COPY --chown=app f /p/q/f"), TREE),
    Case("chown-merge", "folders that are there keep their owner", busybox("RUN mkdir -p /new/s\nCOPY --chown=app d /new"), {"d/s/a": "1"}),
    Case("chown-link", "a link's own owner changes", busybox("COPY --chown=7:8 d /new"), {"d/l": L("/etc/passwd")},
         golden={"new": folder(owner=(7, 8)), "new/l": link("/etc/passwd", (7, 8))}),
    Case("chown-scratch-ids", "ids need no /etc/passwd", "FROM scratch\nCOPY --chown=7:8 f /f\n", TREE, golden={"f": copied("1", owner=(7, 8))}),
    Case("chown-scratch-names", "names do", "FROM scratch\nCOPY --chown=app f /f\n", TREE, error=("app",)),
    Case("chown-setuid", "setuid stays", busybox("COPY --chown=app f /f"), {"f": F("1", 0o4755)}),
    Case("chmod-octal", "--chmod in octal is of files and folders", busybox("COPY --chmod=751 d /new"), {"d/a": "1", "d/s/b": "2"},
         knows=(BUILDKIT, BUILDAH)),
    Case("chmod-file", "of a file", busybox("COPY --chmod=0400 f /f"), TREE, knows=(BUILDKIT, BUILDAH), golden={"f": copied("1", 0o400)}, quick=True),
    Case("chmod-special", "with setuid and its like", busybox("COPY --chmod=6755 f /f"), TREE, knows=(BUILDKIT, BUILDAH), golden={"f": copied("1", 0o6755)}),
    Case("chmod-variable", "with variables", busybox("ARG MODE=440\nCOPY --chmod=$MODE f /f"), TREE, knows=(), golden={"f": copied("1", 0o440)}),
    Case("chmod-symbolic", "--chmod in letters", busybox("COPY --chmod=+x f /f\nCOPY --chmod=u=rwX,go=rX d /d\nCOPY --chmod=g=u g /g"),
         {"f": F("1", 0o644), "g": F("2", 0o640), "d/a": F("3", 0o600), "d/x": F("4", 0o700), "d/s/b": F("5", 0o666)}, knows=(),
         golden={"f": copied("1", 0o755), "g": copied("2", 0o660), "d": folder(), "d/a": copied("3", 0o644), "d/x": copied("4", 0o755),
                 "d/s": folder(), "d/s/b": copied("5", 0o644)}),
    Case("chmod-and-chown", "both", busybox("COPY --chown=app --chmod=640 f /f"), TREE, knows=(BUILDKIT, BUILDAH), golden={"f": copied("1", 0o640, (1000, 1001))}),
    Case("chmod-not-links", "links have no mode", busybox("COPY --chmod=600 d /new"), {"d/a": "1", "d/l": L("/etc/passwd")}, knows=(BUILDKIT,)),
    Case("link-file", "--link copies onto a layer of its own", busybox("COPY --link f /a/f"), TREE, knows=(),
         golden={"a": folder(), "a/f": copied("1")}, quick=True),
    Case("link-over-link", "--link replaces links in the destination by folders", busybox("RUN mkdir /real && ln -s real /t\nCOPY --link f /t/f"), TREE,
         knows=(), golden={"real": folder(), "t": folder(), "t/f": copied("1")}),
    Case("link-false", "--link=false is as without", busybox("RUN mkdir /real && ln -s real /t\nCOPY --link=false f /t/f"), TREE,
         knows=(), golden={"real": folder(), "t": link("real"), "real/f": copied("1")}),
    Case("link-chown", "--link with ids", busybox("COPY --link --chown=7:8 f /a"), TREE, knows=(), golden={"a": copied("1", owner=(7, 8))}),
    Case("link-folder-mode", "a folder's mode is the copied one's", busybox("RUN mkdir -m 700 /new\nCOPY --link d /new"), {"d": D(0o750), "d/a": "1"}, knows=(),
         golden={"new": folder(), "new/a": copied("1")}),
    Case("parents", "--parents keeps the sources' folders", "FROM scratch\nCOPY --parents ./x/a.txt y/a.txt /parents/\n",
         {"x/a.txt": "1", "y/a.txt": "2", "y/b.txt": "3"}, knows=(), quick=True,
         golden={"parents": folder(), "parents/x": folder(), "parents/x/a.txt": copied("1"), "parents/y": folder(), "parents/y/a.txt": copied("2")}),
    Case("parents-pivot", "only those behind a /./", "FROM scratch\nCOPY --parents ./x/./y/*.txt /parents/\n", {"x/y/a.txt": "1", "x/y/b.txt": "2", "x/y/c": "3"}, knows=(),
         golden={"parents": folder(), "parents/y": folder(), "parents/y/a.txt": copied("1"), "parents/y/b.txt": copied("2")}),
    Case("parents-stars", "** matches any number of folders", "FROM scratch\nCOPY --parents ./src/**/*.txt /parents/\n",
         {"src/a.txt": "1", "src/x/b.txt": "2", "src/x/y/c.txt": "3", "src/x/y/d": "4"}, knows=(),
         golden={"parents": folder(), "parents/src": folder(), "parents/src/a.txt": copied("1"), "parents/src/x": folder(),
                 "parents/src/x/b.txt": copied("2"), "parents/src/x/y": folder(), "parents/src/x/y/c.txt": copied("3")}),
    Case("parents-folder", "a folder as a source", "FROM scratch\nCOPY --parents x/y /p/\n", {"x/y/a": "1", "x/z": "2"}, knows=(),
         golden={"p": folder(), "p/x": folder(), "p/x/y": folder(), "p/x/y/a": copied("1")}),
    Case("parents-from", "with --from", "FROM base:1 AS one\nRUN mkdir -p /a/b && echo 1 >/a/b/c\nFROM scratch\nCOPY --from=one --parents /a/./b/c /p/\n", knows=(),
         golden={"p": folder(), "p/b": folder(), "p/b/c": file("1\n")}),
    Case("exclude", "--exclude leaves out what matches", "FROM scratch\nCOPY --exclude=*.txt hom* /d/\n", {"home.txt": "1", "homer": "2", "homes.md": "3"}, knows=(),
         golden={"d": folder(), "d/homer": copied("2"), "d/homes.md": copied("3")}, quick=True),
    Case("exclude-several", "several times", "FROM scratch\nCOPY --exclude=*.txt --exclude=*.md hom* /d/\n", {"home.txt": "1", "homer": "2", "homes.md": "3"}, knows=(),
         golden={"d": folder(), "d/homer": copied("2")}),
    Case("exclude-within", "** within a folder", "FROM scratch\nCOPY --exclude=**/*.o d /d/\n", {"d/a.o": "1", "d/a.c": "2", "d/s/b.o": "3", "d/s/b.c": "4"}, knows=(),
         golden={"d": folder(), "d/a.c": copied("2"), "d/s": folder(), "d/s/b.c": copied("4")}),
    Case("exclude-folder", "a folder with all that it holds", "FROM scratch\nCOPY --exclude=d/s . /x/\n", {"d/a": "1", "d/s/b": "2"}, knows=(),
         golden={"x": folder(), "x/d": folder(), "x/d/a": copied("1"), "x/Dockerfile": copied("FROM scratch\nCOPY --exclude=d/s . /x/\n")}),
    Case("copy-checksum", "--checksum is ADD's alone", busybox("COPY --checksum=sha256:0 f /"), TREE, error=("checksum",)),
)

PACK = {"x/a": F("1", 0o640, owner=(5, 6)), "x/l": L("a"), "x/h": Hard("x/a"), "x/s": D(0o711)}
ADDING = (
    *(
        Case(f"add-archive-{name}", f"a local tar ({name}) is unpacked, with owners, modes and times", busybox("ADD a.tar /new/"),
             {"a.tar": tar_of({"top": F("1", 0o640, owner=(5, 6)), "s": D(0o711), "s/in": F("2")}, compression)},
             golden={"new": folder(), "new/top": copied("1", 0o640, (5, 6)), "new/s": folder(0o711), "new/s/in": copied("2")},
             quick=name == "gzip")
        for name, compression in (("plain", ""), ("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"))
    ),
    Case("add-archive-links", "with links of both kinds", busybox("ADD a.tar /new"), {"a.tar": tar_of(PACK)}),
    Case("add-archive-by-content", "content decides, not the name", busybox("ADD a.txt b.tar.gz c.tar.gz /new/"),
         {"a.txt": tar_of({"in": F("1")}), "b.tar.gz": "no archive", "c.tar.gz": ""},
         golden={"new": folder(), "new/in": copied("1"), "new/b.tar.gz": copied("no archive"), "new/c.tar.gz": copied("")}),
    Case("add-gzip-file", "a compressed file that is no tar stays as it is", busybox("ADD a.gz /new/"), {"a.gz": bytes.fromhex("1f8b0800000000000003cb48cdc9c9e70200203a5a4806000000")[:26]}),
    Case("add-archive-not-copy", "COPY unpacks nothing", busybox("COPY a.tar /new"), {"a.tar": archive(x="1")}),
    Case("add-archive-over", "an archive's files replace, and join, what is there",
         busybox("RUN mkdir -m 700 /new && mkdir /new/s && echo x >/new/s/a && echo y >/new/s/b\nADD a.tar /new"),
         {"a.tar": tar_of({"s": D(0o711), "s/a": F("1")})}),
    Case("add-archive-target-file", "an archive's destination is a folder, slash or not", busybox("ADD a.tar /new"), {"a.tar": archive(x="1")}),
    Case("add-archive-onto-file", "one that is a file is refused", busybox("ADD a.tar /etc/group"), {"a.tar": archive(x="1")}, error=("group",)),
    Case("add-archive-dots", "names of ./ and folders that are told nowhere", busybox("ADD a.tar /new"), {"a.tar": tar_of({"./": D(0o700), "./p/q/x": F("1")})}),
    Case("add-archive-absolute", "absolute names are below the destination", busybox("ADD a.tar /new"), {"a.tar": tar_of({"/x": F("1")})}),
    Case("add-archive-above", "names that lead out are refused, or end within", busybox("ADD a.tar /new/deep"), {"a.tar": tar_of({"../x": F("1")})}, error=("../x",)),
    Case("add-archive-link-out", "a link in it leads nowhere outside", busybox("ADD a.tar /new"), {"a.tar": tar_of({"l": L("../../../etc"), "l/x": F("1")})}),
    Case("add-archive-chown", "--chown holds for what is unpacked", busybox("ADD --chown=app a.tar /new"),
         {"a.tar": tar_of({"x": F("1", owner=(5, 6)), "s": D(0o711, (7, 8))})}),
    Case("add-archive-whiteout", "names as of whiteouts are names", busybox("ADD a.tar /new"), {"a.tar": tar_of({".wh.x": F("1"), "y": F("2")})}),
    Case("add-archive-fifo", "a named pipe in it", busybox("ADD a.tar /new"), {"a.tar": tar_of({"p": Fifo(), "y": F("2")})}),
    Case("add-archive-in-folder", "one within an added folder is a file", busybox("ADD d /new"), {"d/a.tar": archive(x="1")}),
    Case("add-archive-and-file", "an archive and a file", busybox("ADD a.tar f /new/"), {"a.tar": archive(x="1"), "f": "2"},
         golden={"new": folder(), "new/x": copied("1"), "new/f": copied("2")}),
    Case("add-archive-matched", "archives that a wildcard matches", busybox("ADD *.tar /new/"), {"a.tar": archive(x="1"), "b.tar": archive(y="2")},
         golden={"new": folder(), "new/x": copied("1"), "new/y": copied("2")}),
    Case("add-unpack-false", "--unpack=false keeps the archive", busybox("ADD --unpack=false a.tar /new/"), {"a.tar": F(archive(x="1"))}, knows=()),
    Case("add-file", "ADD of a file is as COPY", busybox("ADD --chown=app f /f"), TREE, golden={"f": copied("1", owner=(1000, 1001))}),
    Case("add-folder", "of a folder too", busybox("ADD d /new"), TREE, golden={"new": folder(), "new/a": copied("2"), "new/sub": folder(), "new/sub/b": copied("3")}),
    Case("add-wildcard", "wildcards as COPY's", busybox("ADD *.txt /new/"), {"a.txt": "1", "b.txt": "2"},
         golden={"new": folder(), "new/a.txt": copied("1"), "new/b.txt": copied("2")}),
    Case("add-link-exclude", "ADD has --link and --exclude", busybox("ADD --link --exclude=*.md d /new/"), {"d/a": "1", "d/b.md": "2"}, knows=(),
         golden={"new": folder(), "new/a": copied("1")}),
)


def ignored(name: str, rule: str, patterns: str, kept: str, *, quick: bool = False, knows: tuple[str, ...] = ALL,
            context: dict[str, str] | None = None, where: str = ".dockerignore") -> Case:  # fmt: skip
    """`kept`: the files that arrive, in words."""
    files = context or dict.fromkeys(["a", "b.md", "c.md", "README.md", "d/a", "d/b.md", "d/e/a", "d/e/b.md", "x/y/z/t", "temp", "tempo", "d/temp"], "1")
    folders = {"/".join(n.split("/")[:i]) for n in kept.split() for i in range(1, n.count("/") + 1)}
    golden = {"c": folder()} | {f"c/{n}": copied(files[n]) for n in kept.split()} | {f"c/{n}": folder() for n in folders}
    text = "FROM scratch\nCOPY . /c\n"
    golden |= {"c/Dockerfile": copied(text)} if "ockerfile" not in patterns and patterns != "*" else {}
    if where not in patterns:
        golden |= {f"c/{where}": copied(patterns)}
    return Case(f"ignore-{name}", rule, text, {**files, where: patterns}, golden=golden, quick=quick, knows=knows)


IGNORE = (
    ignored("names", "names at the root", "a\ntemp\n.dockerignore\n", "b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t tempo d/temp"),
    ignored("star", "* within one folder", "*.md\n*/temp*\n.dockerignore\n", "a d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo", quick=True),
    ignored("star-star", "** at any depth", "**/*.md\n.dockerignore\n", "a d/a d/e/a x/y/z/t temp tempo d/temp"),
    ignored("question", "? is one character", "temp?\n.dockerignore\n", "a b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp d/temp"),
    ignored("folder", "a folder with all below", "d\n.dockerignore\n", "a b.md c.md README.md x/y/z/t temp tempo"),
    ignored("except", "! takes it back, the last line that matches counts", "*.md\n!README.md\n.dockerignore\n", "a README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp", quick=True),
    ignored("except-order", "an exclusion after ! has the last word", "*.md\n!README.md\nREADME*\n.dockerignore\n", "a d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp"),
    ignored("except-in-folder", "! in an excluded folder", "d\n!d/e/a\n.dockerignore\n", "a b.md c.md README.md d/e/a x/y/z/t temp tempo"),
    ignored("everything-but", "* and exceptions", "*\n!a\n!d/*.md\n", "a d/b.md"),
    ignored("slashes", "slashes around and dots are cleaned", "/a\nd/\n./temp\nx/../tempo\n.dockerignore\n", "b.md c.md README.md x/y/z/t"),
    ignored("comments", "lines that begin with # and empty ones are nothing", "# a\n\n   \na   \n.dockerignore\n", "b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp"),
    ignored("star-star-middle", "** in the middle", "x/**/t\nd/**/a\n.dockerignore\n", "a b.md c.md README.md d/b.md d/e/b.md temp tempo d/temp"),
    ignored("dockerfile", "Dockerfile and .dockerignore can be excluded, and are used all the same", "Dockerfile\n.dockerignore\n",
            "a b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t temp tempo d/temp"),
    ignored("crlf-bom", "CR LF and a byte order mark", "\ufeffa\r\ntemp\r\n.dockerignore\r\n", "b.md c.md README.md d/a d/b.md d/e/a d/e/b.md x/y/z/t tempo d/temp"),
    Case("ignore-source-excluded", "an excluded source is not there", busybox("COPY a /"), {"a": "1", ".dockerignore": "a\n"}, error=("a",)),
    Case("ignore-own-file", "DOCKERFILE.dockerignore comes first", "FROM scratch\nCOPY . /c\n",
         {"a": "1", "b": "2", ".dockerignore": "a\n", "own.dockerignore": "b\nown*\n.dockerignore\n"}, file="own", knows=(BUILDKIT,),
         golden={"c": folder(), "c/a": copied("1")}),
    Case("ignore-not-for-stages", "it is not for --from", "FROM base:1 AS one\nRUN echo 1 >/a\nFROM scratch\nCOPY --from=one /a /\n",
         {".dockerignore": "a\n"}, golden={"a": file("1\n")}),
    Case("ignore-parent-made", "folders above what is kept are there", "FROM scratch\nCOPY d /c\n", {"d/e/f/a": "1", "d/x": "2", ".dockerignore": "d\n!d/e/f/a\n"},
         golden={"c": folder(), "c/e": folder(), "c/e/f": folder(), "c/e/f/a": copied("1")}),
)

CASES = (*onto_targets(), *SOURCES, *FLAGS, *ADDING, *IGNORE)
