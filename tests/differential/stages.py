"""Cases of FROM, several stages, targets, and mounts and networks of RUN."""

# fmt: off
from __future__ import annotations

from tests.differential.case import (
    BK,
    BUILDAH,
    BUILDKIT,
    CLASSIC,
    DOCKER,
    Case,
    F,
    busybox,
    copied,
    file,
    folder,
    link,
)
from tests.differential.language import env

LEAVES = "leaves the mount point in the image (BuildKit of today does not)"
EXACT = "wants the same letters"

STAGES = (
    Case("from-scratch", "scratch is nothing", "FROM scratch\nLABEL a=b\nCOPY f /\n", {"f": "1"},
         config={"Labels": {"a": "b"}}, golden={"f": copied("1")}),
    Case("from-no-tag", "no tag is latest", "FROM base\nENV a=b\n",
         before={"base:latest": busybox("ENV l=1")}, config=env("l=1", "a=b")),
    Case("from-as-case", "AS in any letters, and names of stages too",
         "FROM base:1 as One\nRUN echo 1 >/a\nFROM scratch\nCOPY --from=oNE /a /\n",
         golden={"a": file("1\n")}, dissent={BUILDAH: EXACT}),
    Case("from-platform", "--platform", "FROM --platform=linux/amd64 base:1\nENV a=b\n",
         config={**env("a=b"), "Platform": "linux/amd64"}),
    Case("from-same-twice", "the same base in several stages",
         "FROM base:1 AS a\nRUN echo 1 >/a\nFROM base:1\nCOPY --from=a /a /b\n", golden={"b": file("1\n")}),
    Case("stage-copy", "COPY --from=name", "FROM base:1 AS one\nRUN echo 1 >/a\nFROM scratch\n"
         "COPY --from=one /a /\n", golden={"a": file("1\n")}, quick=True),
    Case("stage-copy-index", "COPY --from=index", "FROM base:1\nRUN echo 1 >/a\nFROM base:1\nRUN echo 2 >/a\n"
         "FROM scratch\nCOPY --from=0 /a /x\nCOPY --from=1 /a /y\n",
         golden={"x": file("1\n"), "y": file("2\n")}),
    Case("stage-copy-image", "COPY --from=image", "FROM scratch\nCOPY --from=base:1 /etc/group /bin/ls /x/\n",
         knows=DOCKER),
    Case("stage-copy-relative", "a relative source is from the stage's root",
         "FROM base:1 AS one\nWORKDIR /w\nRUN echo 1 >a\nFROM scratch\nCOPY --from=one w/a /\n",
         golden={"a": file("1\n")}),
    Case("stage-copy-owner", "owners are lost, modes stay",
         "FROM base:1 AS one\nRUN mkdir /d && echo 1 >/d/a && chmod 640 /d/a && chown app:app /d/a /d\n"
         "FROM scratch\nCOPY --from=one /d /d\n"),
    Case("stage-copy-links", "links in a copied folder stay",
         "FROM base:1 AS one\nRUN mkdir /d && ln -s /etc/passwd /d/l && ln -s gone /d/x\nFROM scratch\n"
         "COPY --from=one /d /d\n",
         golden={"d": folder(), "d/l": link("/etc/passwd"), "d/x": link("gone")}),
    Case("stage-copy-link-source", "a source that is a link is followed within the stage",
         "FROM base:1 AS one\nRUN ln -s /etc/group /l && mkdir /d && echo 1 >/d/a && ln -s /d /e\n"
         "FROM scratch\nCOPY --from=one /l /e/a /x/\nCOPY --from=one /e /y/\n"),
    Case("stage-copy-wildcard", "wildcards in a stage",
         "FROM base:1 AS one\nRUN touch /a1 /a2 /b1\nFROM scratch\nCOPY --from=one /a* /x/\n",
         golden={"x": folder(), "x/a1": file(""), "x/a2": file("")}),
    Case("stage-copy-hard-links", "hard links in a stage",
         "FROM base:1 AS one\nRUN mkdir /d && echo 1 >/d/a && ln /d/a /d/b\nFROM scratch\n"
         "COPY --from=one /d /d\n", knows=(BUILDKIT,)),
    Case("stage-copy-times", "a stage's times stay",
         "FROM base:1 AS one\nRUN echo 1 >/a && touch -d '2001-02-03 04:05:06' /a\nFROM scratch\n"
         "COPY --from=one /a /\n", golden={"a": copied("1\n")}),
    Case("stage-copy-removed", "what a stage removed is gone",
         "FROM base:1 AS one\nRUN mkdir /d && touch /d/a /d/b\nRUN rm /d/a\nFROM scratch\n"
         "COPY --from=one /d /d\n",
         golden={"d": folder(), "d/b": file("")}),
    Case("stage-base", "a stage as another's base, with its configuration",
         "FROM base:1 AS one\nENV a=1\nWORKDIR /w\nRUN echo 1 >a\nFROM one\nENV b=$a\nRUN cat a >b\n",
         config={**env("a=1", "b=1"), "WorkingDir": "/w"}, golden={"w": folder(), "w/a": file("1\n"),
         "w/b": file("1\n")}),
    Case("stage-name-hides-image", "a stage's name comes before an image's",
         "FROM base:1 AS other\nENV a=1\nFROM other\nENV b=2\n", before={"other:latest": busybox("ENV x=y")},
         config=env("a=1", "b=2")),
    Case("stage-unused", "a stage that nothing needs is not built",
         "FROM base:1 AS unused\nRUN false\nFROM base:1\nENV a=b\n", knows=(BUILDKIT,), config=env("a=b"),
         quick=True),
    Case("stage-target", "--target ends the build at a stage",
         "FROM base:1 AS one\nENV a=1\nFROM base:1 AS two\nRUN false\n", flags=("--target", "one"),
         config=env("a=1"), quick=True),
    Case("stage-target-case", "in any letters", "FROM base:1 AS One\nENV a=1\nFROM base:1\nRUN false\n",
         flags=("--target", "oNe"), config=env("a=1"), dissent={BUILDAH: EXACT}),
    Case("stage-target-index", "or by number", "FROM base:1\nENV a=1\nFROM base:1\nRUN false\n",
         flags=("--target", "0"), config=env("a=1"),
         dissent=dict.fromkeys(DOCKER, "knows stages by name alone")),
    Case("stage-target-last", "of two stages of a name the later one counts",
         "FROM base:1 AS one\nENV a=1\nFROM base:1 AS one\nENV a=2\n", flags=("--target", "one"),
         knows=(BUILDKIT,), config=env("a=2")),
    Case("stage-label-flag-last", "--label is the last stage's",
         "FROM base:1 AS one\nENV a=1\nFROM base:1\nENV b=1\n", flags=("--label", "x=y"),
         config={**env("b=1"), "Labels": {"x": "y"}}),
    Case("stage-copy-variable", "--from has no variables",
         "ARG s=one\nFROM base:1 AS one\nRUN echo 1 >/a\nFROM base:1\nARG s=one\nCOPY --from=$s /a /\n",
         error=("Dockerfile:6",)),
    Case("named-context", "a named context as --from", busybox("COPY --from=other a /"),
         contexts={"other": {"a": "1"}}, flags=("--build-context", "other={{other}}"), knows=(BUILDAH,),
         golden={"a": copied("1")}, quick=True),
    Case("named-context-stage", "it replaces a stage of its name",
         "FROM base:1 AS other\nRUN echo 2 >/a\nFROM base:1\nCOPY --from=other /a /\n",
         contexts={"other": {"a": "1"}}, flags=("--build-context", "other={{other}}"), knows=(),
         golden={"a": copied("1")}),
)

RUNS = (
    Case("run-changes", "what RUN makes, changes, removes and renames is the layer",
         busybox("RUN mkdir /d && echo 1 >/d/a && chmod 600 /d/a && chown 5:6 /d/a && ln /d/a /d/b && ln -s "
         "a /d/l && rm /etc/group && mv /www /web && mkfifo /p"), quick=True),
    Case("run-remove-make", "a folder removed and made again is a new one",
         busybox("RUN mkdir /d && touch /d/old\nRUN rm -r /d && mkdir /d && touch /d/new"),
         golden={"d": folder(), "d/new": file("")}),
    Case("run-exec", "the exec form", busybox('RUN ["/bin/touch", "/a b"]'), golden={"a b": file("")}),
    Case("run-cwd", "RUN starts in WORKDIR", busybox("WORKDIR /w\nRUN pwd >out"),
         golden={"w": folder(), "w/out": file("/w\n")}),
    Case("run-umask", "its umask is 022", busybox("RUN umask >/out"), golden={"out": file("0022\n")}),
    Case("run-stdin", "its input is empty", busybox("RUN cat >/out"), golden={"out": file("")}),
    Case("run-env", "its environment is ENV's, with PATH, and HOME",
         busybox("ENV a='x y'\nRUN env | grep -v -e HOSTNAME -e container= -e SHLVL -e PWD | sort >/out"),
         knows=DOCKER),
    Case("run-times", "times that RUN sets stay", busybox("RUN echo 1 >/a && touch -d '2001-02-03 04:05:06' "
         "/a"), golden={"a": copied("1\n")}),
    Case("run-mount-places", "files mounted for RUN leave nothing in the image",
         busybox("RUN cat /etc/hosts /etc/resolv.conf >/dev/null && touch /a"), golden={"a": file("")}),
    Case("run-not-kept", "processes that RUN leaves behind end with it",
         busybox("RUN (sleep 1000; touch /late) & touch /a"), golden={"a": file("")}, knows=DOCKER),
    Case("run-nothing", "RUN that changes nothing", busybox("RUN true"), golden={}),
    Case("mount-bind", "a bind mount shows the context, and leaves its mount point alone",
         busybox("RUN --mount=target=/ctx cat /ctx/a >/out"), {"a": "1"}, knows=BK,
         golden={"out": file("1")}, quick=True,
         dissent={BUILDKIT: LEAVES}),
    Case("mount-bind-source", "source is a path in it",
         busybox("RUN --mount=type=bind,source=d/a,target=/tmp/x cat /tmp/x >/out"), {"d/a": "1"}, knows=BK,
         dissent={BUILDAH: LEAVES},
         golden={"out": file("1")}),
    Case("mount-bind-from", "from names a stage", "FROM base:1 AS one\nRUN echo 1 >/a\nFROM base:1\n"
         "RUN --mount=from=one,source=/a,target=/tmp/x cat /tmp/x >/out\n", knows=BK,
         dissent={BUILDAH: LEAVES},
         golden={"out": file("1\n")}),
    Case("mount-bind-read-only", "it is read-only",
         busybox("RUN --mount=target=/www ! touch /www/b 2>/dev/null"), {"a": "1"}, knows=BK,
         golden={},
         dissent={BUILDAH: "removes the mount point, be it the base's own"}),
    Case("mount-bind-writable", "with rw, what is written is thrown away",
         busybox("RUN --mount=target=/www,rw touch /www/b && ls /www >/out"), {"a": "1"},
         knows=(BUILDKIT,), golden={"out": file("Dockerfile\na\nb\n")}),
    Case("mount-cache", "a cache is shared by the steps, and not in the image",
         busybox("RUN --mount=type=cache,target=/www echo 1 >/www/a\n"
         "RUN --mount=type=cache,target=/www cat /www/a >/out"), knows=(BUILDKIT,),
         golden={"out": file("1\n")}, quick=True),
    Case("mount-cache-ids", "caches are known by id",
         busybox("RUN --mount=type=cache,id=x,target=/www echo 1 >/www/a\n"
         "RUN --mount=type=cache,id=x,target=/var cat /var/a >/out\n"
         "RUN --mount=type=cache,id=y,target=/www ls /www >>/out"),
         knows=(BUILDKIT,), golden={"out": file("1\n")}),
    Case("mount-cache-mode", "a new cache's mode and owner",
         busybox("RUN --mount=type=cache,id=mode,target=/www,mode=0700,uid=5,gid=6 stat -c '%a %u %g' "
         "/www >/out"), knows=(BUILDKIT,), golden={"out": file("700 5 6\n")}),
    Case("mount-cache-from", "a cache may begin with a stage's folder",
         "FROM base:1 AS one\nRUN mkdir /d && echo 1 >/d/a\nFROM base:1\n"
         "RUN --mount=type=cache,id=from,from=one,source=/d,target=/www cat /www/a >/out\n",
         knows=(BUILDKIT,), golden={"out": file("1\n")}),
    Case("mount-tmpfs", "a tmpfs", busybox("RUN --mount=type=tmpfs,target=/www touch /www/a && stat -f "
         "-c %T /www >/out"), knows=(BUILDKIT,), golden={"out": file("tmpfs\n")}),
    Case("mount-secret", "a secret is a file that the image never has",
         busybox("RUN --mount=type=secret,id=s cat /run/secrets/s >/out && stat -c '%a %u %g' "
         "/run/secrets/s >>/out"),
         contexts={"keys": {"s": "hush\n"}}, flags=("--secret", "id=s,src={{keys}}/s"), knows=BK,
         dissent=dict.fromkeys(BK, LEAVES), golden={"out": file("hush\n400 0 0\n")}),
    Case("mount-secret-target", "where and how it is told",
         busybox("RUN --mount=type=secret,id=s,target=/tmp/x,mode=0440,uid=5,gid=6 cat /tmp/x >/out && stat "
         "-c '%a %u %g' /tmp/x >>/out"),
         contexts={"keys": {"s": "hush\n"}}, flags=("--secret", "id=s,src={{keys}}/s"), knows=(BUILDKIT,),
         golden={"out": file("hush\n440 5 6\n")}),
    Case("mount-secret-absent", "one that is not given is not there",
         busybox("RUN --mount=type=secret,id=s test ! -e /run/secrets/s"), knows=(BUILDKIT,)),
    Case("mount-secret-required", "unless it is required",
         busybox("RUN --mount=type=secret,id=s,required true"), knows=(BUILDKIT,), error=("s",)),
    Case("mount-secret-env", "as a variable", busybox("RUN --mount=type=secret,id=s,env=KEY echo \"$KEY\" "
         ">/out; test ! -e /run/secrets/s"), contexts={"keys": {"s": "hush"}},
         flags=("--secret", "id=s,src={{keys}}/s"), knows=(), golden={"out": file("hush\n")}),
    Case("mount-several", "several mounts of a RUN",
         busybox("RUN --mount=type=tmpfs,target=/www --mount=target=/var cp /var/a /www/ && cat "
         "/www/a >/out"), {"a": "1"}, knows=(BUILDKIT,), golden={"out": file("1")}),
    Case("mount-variable", "variables in mounts", busybox("ARG where=/tmp/c\n"
         "RUN --mount=type=tmpfs,target=$where test -d /tmp/c && echo $where >/out"), knows=(),
         golden={"out": file("/tmp/c\n")}),
    Case("network-none", "--network=none has a loopback alone",
         busybox("RUN --network=none ip -o link | wc -l >/out"), knows=(), golden={"out": file("1\n")}),
    Case("network-flag", "--network of the build", busybox("RUN ip -o link | wc -l >/out"),
         flags=("--network", "none"), knows=DOCKER, golden={"out": file("1\n")}),
    Case("network-host-entitled", "--network=host needs --allow", busybox("RUN --network=host true"),
         knows=(), error=("network.host",)),
    Case("security-entitled", "--security=insecure needs --allow", busybox("RUN --security=insecure true"),
         knows=(), error=("security.insecure",)),
    Case("add-host", "--add-host is for RUN's /etc/hosts",
         busybox("RUN grep -c other.example /etc/hosts >/out"), flags=("--add-host",
         "other.example:192.0.2.1"), knows=DOCKER, golden={"out": file("1\n")}),
    Case("shm-size", "--shm-size", busybox("RUN df -m /dev/shm | tail -1 | awk '{print $2}' >/out"),
         flags=("--shm-size", "16m"), knows=(CLASSIC,), golden={"out": file("16\n")}),
    Case("ulimit", "--ulimit", busybox("RUN ulimit -n >/out"), flags=("--ulimit", "nofile=512:1024"),
         knows=(CLASSIC,), golden={"out": file("512\n")}),
    Case("dockerfile-elsewhere", "-f names a file below the context", "FROM scratch\nCOPY . /c\n",
         {"d/a": "1"}, file="d/Other", golden={"c": folder(), "c/d": folder(), "c/d/a": copied("1"),
         "c/d/Other": copied("FROM scratch\nCOPY . /c\n")}),
    Case("every-instruction", "one Dockerfile with all of them",
         "# escape=\\\nARG tag=1\nFROM base:$tag AS build\nARG v=1\nRUN echo $v >/made\n"
         "FROM base:1\nMAINTAINER me\nLABEL a=b\nENV c=d\nWORKDIR /w\nCOPY --from=build /made .\nADD f /x/\n"
         "RUN cat made f >out 2>/dev/null; true\n"
         "EXPOSE 80\nVOLUME /v\nUSER app\nSTOPSIGNAL SIGINT\nHEALTHCHECK CMD true\n"
         "SHELL [\"/bin/ash\", \"-c\"]\nONBUILD RUN true\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n",
         {"f": F("1", 0o600)}, quick=True, flags=("--build-arg", "v=2"),
         config={"Author": "me", "Cmd": ["c"], "Entrypoint": ["e"], "ExposedPorts": ["80/tcp"],
         "Healthcheck": {"Test": ["CMD-SHELL", "true"]},
                 "Labels": {"a": "b"}, "OnBuild": ["RUN true"], "Shell": ["/bin/ash", "-c"],
                 "StopSignal": "SIGINT", "User": "app", "Volumes": ["/v"], "WorkingDir": "/w"}),
)

CASES = (*STAGES, *RUNS)
