"""Cases of ADD from elsewhere: URLs and git repositories."""

# fmt: off
from __future__ import annotations

from tests.differential.case import BK, BUILDAH, BUILDKIT, CLASSIC, Case, busybox, copied, file, folder, link
from tests.differential.serving import CHECKSUM, GIT, TEXT, WEB
from tests.differential.trees import Entry

DEEP = {"new/sub": folder(), "new/sub/g": file("g\n"), "new/sub/l": link("g"), "new/sub/deep": folder(),
        "new/sub/deep/h": file("h\n")}
SECOND = {"new": folder(), "new/f": file("second\n"), **DEEP}
FIRST = {"new": folder(), "new/f": file("first\n", 0o755), **DEEP}
SUB = {"new": folder(), "new/g": file("g\n"), "new/l": link("g"), "new/deep": folder(),
       "new/deep/h": file("h\n")}
WRONG = "sha256:" + "0" * 64
FILE = {"f": copied(TEXT, 0o600)}


def one(name: str) -> dict[str, Entry]:
    """The web's file under that name in a folder."""
    return {"new": folder(), f"new/{name}": copied(TEXT, 0o600)}


CASES = (
    Case("url-file", "a URL's file is root's alone to read and write, with the time that its server tells",
         busybox(f"ADD {WEB}/file /f"), golden=FILE, quick=True),
    Case("url-into-folder", "behind a slash it has the URL's last name", busybox(f"ADD {WEB}/file?q=1 /new/"),
         golden=one("file")),
    Case("url-undated", "without a time told it is of the epoch", busybox(f"ADD {WEB}/undated /f"),
         golden={"f": file(TEXT, 0o600, mtime=0)}),
    Case("url-redirect", "a redirect is followed, and the name stays the first URL's",
         busybox(f"ADD {WEB}/moved /new/"), golden=one("moved")),
    Case("url-redirect-round", "one that never ends is refused", busybox(f"ADD {WEB}/round /f"),
         error=("redirects",)),
    Case("url-missing", "what is not there is refused", busybox(f"ADD {WEB}/none /f"), error=("404",)),
    Case("url-nameless", "a URL without a last name is called so in a folder",
         busybox(f"ADD {WEB}/ /new/"), golden=one("__unnamed__"),
         dissent=dict.fromkeys((CLASSIC, BUILDAH), "refuses that")),
    Case("url-nameless-file", "any name is its own as a file", busybox(f"ADD {WEB}/ /f"), golden=FILE),
    Case("url-escaped", "its name is decoded", busybox(f"ADD {WEB}/dir/a%20b /new/"), golden=one("a b")),
    Case("url-disposition", "a name that the server gives does not count", busybox(f"ADD {WEB}/named /new/"),
         golden=one("named")),
    Case("url-archive", "an archive of a URL is not unpacked", busybox(f"ADD {WEB}/a.tar /new/")),
    Case("url-unpack", "--unpack unpacks it", busybox(f"ADD --unpack {WEB}/a.tar /new/"), knows=(),
         golden={"new": folder(), "new/x": copied("1")}),
    Case("url-two", "several, into a folder", busybox(f"ADD {WEB}/file {WEB}/undated f /new/"), {"f": "1"},
         golden={**one("file"), "new/undated": file(TEXT, 0o600, mtime=0), "new/f": copied("1")}),
    Case("url-chown", "--chown holds for it", busybox(f"ADD --chown=app {WEB}/file /f"),
         golden={"f": copied(TEXT, 0o600, (1000, 1001))}),
    Case("url-chmod", "--chmod too", busybox(f"ADD --chmod=751 {WEB}/file /f"), knows=BK,
         golden={"f": copied(TEXT, 0o751)}, dissent={BUILDKIT: "keeps 0600 (BuildKit of today does not)"}),
    Case("url-variable", "variables stand in URLs", busybox(f"ARG n=file\nADD {WEB}/$n /f"), golden=FILE),
    Case("url-copy", "COPY takes none", busybox(f"COPY {WEB}/file /f"), error=("COPY",)),
    Case("url-checksum", "--checksum that is right changes nothing",
         busybox(f"ADD --checksum={CHECKSUM} {WEB}/file /f"), knows=(), golden=FILE),
    Case("url-checksum-wrong", "one that is wrong is refused",
         busybox(f"ADD --checksum={WRONG} {WEB}/file /f"), knows=(), error=("checksum",)),
    Case("url-link", "--link is of use here too", busybox(f"ADD --link {WEB}/file /new/"), knows=(),
         golden=one("file")),
    Case("git-repository", "ADD of a repository is its default branch's files, without .git",
         busybox(f"ADD {GIT}/r /new"), knows=(), golden=SECOND),
    Case("git-tag", "a tag", busybox(f"ADD {GIT}/r#v1 /new"), knows=(), golden=FIRST),
    Case("git-branch", "a branch", busybox(f"ADD {GIT}/r#side /new"), knows=(), golden=FIRST),
    Case("git-folder", "a folder of it", busybox(f"ADD {GIT}/r#v1:sub /new"), knows=(), golden=SUB,
         quick=True),
    Case("git-folder-default", "of the default branch", busybox(f"ADD {GIT}/r#:sub /new/"), knows=(),
         golden=SUB),
    Case("git-chown-chmod", "--chown and --chmod hold for all of it",
         busybox(f"ADD --chown=5:6 --chmod=0700 {GIT}/r#v1:sub/deep /new"), knows=(),
         golden={"new": folder(0o700, (5, 6)), "new/h": file("h\n", 0o700, (5, 6))}),
    Case("git-keep-dir", "--keep-git-dir keeps .git",
         busybox(f"ADD --keep-git-dir=true {GIT}/r#v1 /r\n"
         "RUN test -d /r/.git/objects && rm -r /r && echo y >/out"), knows=(), golden={"out": file("y\n")}),
    Case("git-missing-ref", "a ref that is not there is refused", busybox(f"ADD {GIT}/r#none /new"), knows=(),
         error=("none",)),
    Case("git-missing-folder", "a folder too", busybox(f"ADD {GIT}/r#v1:none /new"), knows=(),
         error=("none",)),
    Case("git-missing", "a repository too", busybox(f"ADD {GIT}/none.git /new"), knows=(), error=("none",)),
)
