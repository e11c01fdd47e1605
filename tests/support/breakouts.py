"""Archives that were made to get out of their folder, and the words that they are written in here.

`name` is a file that holds its own name, `name/` a folder, `name -> target` a symbolic link, `name => target`
a hard link. What each tries is a fact that others found out: Docker's pkg/archive (CVE-2014-6407, 2014-9356),
containerd's archive (TestBreakouts; CVE-2021-32760), CPython's tarfile (TestExtractionFilters; CVE-2007-4559,
2025-4138, 2025-4330, 2025-4517). Beside the root stands a folder `victim` with the files `file` and `hello`.
"""

from __future__ import annotations

import tarfile

from tests.support.images import folder, link, member, tar


def entry(text: str) -> tuple[tarfile.TarInfo, bytes]:
    if " => " in text:
        return link(*text.split(" => "), hard=True)
    if " -> " in text:
        return link(*text.split(" -> "))
    if text.endswith("/"):
        return folder(text)
    return member(text, text.encode())


def archive(*entries: str) -> bytes:
    return tar(*map(entry, entries))


LOOPHOLES = ("loophole-victim => ../victim", "loophole-victim -> ../victim")
DOCKER: dict[str, tuple[str, ...]] = {
    "name climbs": ("../victim/dotdot",),
    "absolute name climbs": ("/../victim/slash-dotdot",),
    "hard link climbs": ("dotdot => ../victim/hello",),
    "absolute hard link climbs": ("slash-dotdot => /../victim/hello",),
    "symlink climbs": ("dotdot -> ../victim/hello",),
    "absolute symlink climbs": ("slash-dotdot -> /../victim/hello",),
    **{
        f"{what}, by {'a hard link' if '=>' in first else 'a symlink'}": (first, second)
        for first in LOOPHOLES
        for what, second in {
            "writes a file": "loophole-victim/file",
            "reads by a symlink": "symlink -> loophole-victim/hello",
            "reads by a hard link": "hardlink => loophole-victim/hello",
            "removes the folder": "loophole-victim",
            "removes the folder, then links": "loophole-victim -> ../victim/hello",
        }.items()
    },
    "hard link to a symlink, then its target": ("symlink1 -> regfile", "symlink2 => symlink1", "regfile"),
    "new folder behind a symlink": ("dir/loophole -> ../../victim", "dir/loophole/newdir/newfile"),
    "file over its own symlink": ("x -> ../victim/file", "x"),
    "hard link to its own symlink": ("x -> ../victim/file", "y => x", "y"),
    "folder over its symlink": ("x -> ../victim", "x/", "x/file"),
    "whiteout behind a symlink": ("x -> ../victim", "x/.wh.file", "x/.wh..wh..opq"),
}

ETC = ("etc/", "etc/passwd")
CONTAINERD: dict[str, tuple[tuple[str, ...], str]] = {
    "symlink absolute": (("etc/", "localetc -> /etc", "/localetc/unbroken"), "etc/unbroken"),
    "symlink up and out": (
        ("etc/", "dummy/", "localetc -> /dummy/../etc", "/localetc/unbroken"),
        "etc/unbroken",
    ),
    "symlinks absolute": (
        ("etc/", "dummy/", "/dummy/etc -> /etc", "localetc -> /dummy/etc", "/localetc/unbroken"),
        "etc/unbroken",
    ),
    "symlinks relative": (
        ("etc/", "dummy/", "/dummy/etc -> /etc", "localetc -> ./dummy/etc", "/localetc/unbroken"),
        "etc/unbroken",
    ),
    "file written again by a symlink": (("etc/", "etc/e", "l -> /etc", "/l/e"), "etc/e"),
    "hard link by a relative symlink": (
        (*ETC, "breakouts/", "breakouts/d1 -> ../../etc", "breakouts/mine => /breakouts/d1/passwd"),
        "breakouts/mine == etc/passwd",
    ),
    "hard link down and out": (
        (*ETC, "b/", "down/", "b/d1 -> ../down/../../etc", "b/mine => /b/d1/passwd"),
        "b/mine == etc/passwd",
    ),
    "hard link by an absolute symlink": ((*ETC, "l -> /etc", "mine => /l/passwd"), "mine == etc/passwd"),
    "hard link by a long climb": (
        (*ETC, "l -> ../../../../../../../etc", "mine => /l/passwd"),
        "mine == etc/passwd",
    ),
    "hard link by a climb through nothing": (
        (*ETC, "up/", "l -> up/../../../etc", "mine => /l/passwd"),
        "mine == etc/passwd",
    ),
    "hard link absolute": ((*ETC, "mine => /etc/passwd"), "mine == etc/passwd"),
    "hard link to a symlink whose target comes": (
        ("etc/", "mine -> /etc/passwd", "twin => mine", "/etc/passwd"),
        "twin == mine",
    ),
    "hard link to a relative symlink": ((*ETC, "l -> ../../etc/passwd", "mine => /l"), "mine == l"),
    "hard link to an absolute symlink": ((*ETC, "l -> /etc/passwd", "mine => /l"), "mine == l"),
    "symlink beside a cleaned name": (
        (*ETC, "localetc/sub/.. -> /etc/", "mine => /etc/passwd"),
        "mine == etc/passwd",
    ),
    "hard link into a folder with a slash": (
        (*ETC, "localetc/", "/localetc/mine => /etc/passwd"),
        "localetc/mine == etc/passwd",
    ),
    "symlink over a folder": (
        (*ETC, "localetc/", "localetc -> /etc", "/localetc/mine => /etc/passwd"),
        "etc/mine == etc/passwd",
    ),
    "relative symlink over a folder": (
        (*ETC, "localetc/", "localetc -> ../../etc", "/localetc/mine => /etc/passwd"),
        "etc/mine == etc/passwd",
    ),
    "folder over a symlink": (
        (*ETC, "localetc -> /etc", "/localetc/", "/localetc/mine => /etc/passwd"),
        "localetc/mine == etc/passwd",
    ),
    "folder over a symlink, then a file": (
        (*ETC, "l -> etc", "/l/localpasswd => /etc/passwd", "/l/", "/l/localpasswd"),
        "l/localpasswd",
    ),
}
"""What is inside afterwards: a file with its content, or two names of one file."""

WHITEOUTS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str, str]] = {
    "of a symlink": ((*ETC, "localetc -> /etc"), (".wh.localetc",), "etc/passwd", "localetc"),
    "in a name that is cleaned": ((*ETC, "l -> /dne"), ("dne/../.wh.etc",), "l", "etc"),
    "behind a symlink to nothing": ((*ETC, "l -> /dne"), ("l/.wh.etc",), "etc/passwd", "l/etc"),
    "behind a symlink below": ((*ETC, "l -> /etc"), ("l/.wh.passwd",), "etc/passwd", "l/passwd"),
    "behind a symlink of its layer": (ETC, ("l -> /etc", "l/.wh.passwd"), "etc", "etc/passwd"),
    "of nothing": (ETC, (".wh..baz", "bar/.wh.nothing"), "etc/passwd", "bar/nothing"),
    "opaque folder": ((*ETC, "etc/old"), ("etc/", "etc/new", "etc/.wh..wh..opq"), "etc/new", "etc/old"),
    "opaque root": ((*ETC, "old"), ("new", ".wh..wh..opq"), "new", "etc"),
    "opaque folder without itself": (ETC, ("etc/.wh..wh..opq",), "etc", "etc/passwd"),
    "of a folder that is made again": (ETC, (".wh.etc", "etc/", "etc/new"), "etc/new", "etc/passwd"),
    "of a folder made before": (ETC, ("etc/", "etc/new", ".wh.etc"), "etc/new", "etc/passwd"),
}
"""Below, the layer; what is there afterwards, and what is not."""
REFUSED_WHITEOUTS = (".wh.", ".wh..", ".wh...", "etc/.wh.", "etc/.wh..", "etc/.wh...")

_STEPS, _LONG = "abcdefghijklmnop", "d" * 200
_SPIRAL = tuple(
    text
    for depth, step in enumerate(_STEPS)
    for text in (
        "/".join([_LONG] * (depth + 1)) + "/",
        "/".join([*[_LONG] * depth, step]) + f" -> {_LONG}",
    )
)
_END = "/".join([*_STEPS, "l" * 254])
CPYTHON: dict[str, tuple[str, ...]] = {
    "benign": ("benign.txt",),
    "absolute": ("/victim/escaped.evil",),
    "parent symlink": ("current -> .", "parent -> current/..", "parent/evil"),
    "parent symlink by itself": ("current -> .", "current/parent -> ..", "parent/evil"),
    "absolute symlink": ("parent -> /victim", "parent/evil"),
    "absolute hard link": ("parent => /victim/foo",),
    "sly relative": ("../moo -> ..//tmp/moo",),
    "sly relative by a folder": ("tmp/", "tmp/../../moo -> tmp/../..//tmp/moo"),
    "deep symlink": (
        "targetdir/target",
        "linkdir/hardlink => targetdir/target",
        "linkdir/symlink -> ../targetdir/target",
    ),
    "chains": (
        "linkdir/symlink -> hardlink",
        "symlink2 -> linkdir/hardlink2",
        "targetdir/target",
        "linkdir/hardlink => targetdir/target",
        "linkdir/hardlink2 => linkdir/symlink",
    ),
    "hard link that falls back": (
        "a/t/dummy",
        "b/",
        "c -> a/t",
        "c/escape -> ../../link_here",
        "c -> b",
        "boom => c/escape",
    ),
    "exfiltration by a symlink": ("escape -> link/link/../../link-here", "link -> ./"),
    "longer than a path": (
        *_SPIRAL,
        f"{_END} -> {'/'.join(['..'] * len(_STEPS))}",
        f"escape -> {_END}/..",
        "flaglink => escape/victim/hello",
        "flaglink",
        "escape/newfile",
    ),
    "slash at the end of a hard link": ("x/", "y => x/", "y/z"),
    "symlink to nothing, then a folder": ("d -> nowhere/..", "d/../x"),
}
