"""A build as it is asked for, and what client and host tell each other while it runs. Pure.

One upgraded connection carries frames of MessagePack both ways (4 bytes of length, big endian, before each).
The client says `Start`; from then on the host asks (`Scan`, `Want`, `AskSecret`, `OpenSsh`) and tells
(`StepBegan` … `Done`), and the client answers what it was asked. Invariant: a client sends nothing, and a
host keeps nothing in memory, that was not asked for. Contexts are trees of objects by digest
(`model.contexttree`), so only what changed travels.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Generic, Literal, TypeVar

import msgspec

from model.codec import UNREADABLE
from model.errors import ErrorBody, InvalidInput
from model.registries import Login
from model.spec import Resources, Struct

PROTOCOL = "flota-build"
"""Value of the Upgrade header."""
MAX_FRAME = 4 << 20
"""Bytes of one frame without its length."""
PIECE = 1 << 18
"""Bytes of data in one frame, of what is sent in pieces."""
WINDOW = 4 << 20
"""Bytes of Exported that a host sends ahead of Taken."""
ANY = "*"
"""Among the ids of secrets or agents: the client is asked for whichever a step names."""
_HEAD = struct.Struct(">I")
HEAD = _HEAD.size
M = TypeVar("M")


class Context(Struct):
    """Where files of a build come from. local: the client's (a folder, or a tar that it read); tar: a stream
    that the client hands on and never reads; git, http: the host fetches it; image: an image's files
    (`docker-image://`); layout: an OCI layout of the client."""

    name: str = ""
    """Empty: the main one; else as `--build-context` names it."""
    kind: Literal["local", "tar", "git", "http", "image", "layout", "none"] = "local"
    ref: str = ""
    """URL with `#ref:subdir`, or reference. Of a local one: what it was called, for messages alone."""


class CacheWay(Struct):
    """`--cache-from`, `--cache-to`."""

    kind: Literal["registry", "local", "inline", "fleet"]
    options: Mapping[str, str] = {}


def cache_context(number: int) -> str:
    """By which name the host asks the client for the folder of its `--cache-from` number `number`."""
    return f"cache-from:{number}"


class Output(Struct):
    """image: into the host's store; registry: and pushed; docker, oci, tar, local: to the client."""

    kind: Literal["image", "registry", "docker", "oci", "tar", "local"] = "image"
    options: Mapping[str, str] = {}


class BuildRequest(Struct):
    dockerfile: bytes
    """Empty: of the main context, where that is no local one."""
    file: str = "Dockerfile"
    """What messages call it."""
    target: str = ""
    args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    names: tuple[str, ...] = ()
    """References that the image gets."""
    platforms: tuple[str, ...] = ()
    contexts: tuple[Context, ...] = (Context(),)
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    network: str = ""
    """Of RUN: `default`, `none`, `host`, or a network's name."""
    hosts: tuple[str, ...] = ()
    """`--add-host`, `name:address`."""
    resources: Resources = Resources()
    shm_size: int = 0
    ulimits: Mapping[str, tuple[int, int]] = {}
    allow: tuple[str, ...] = ()
    """Entitlements: `network.host`, `security.insecure`, `device`."""
    secrets: tuple[str, ...] = ()
    """Ids that the client can answer; ANY: it is asked, whatever the id."""
    ssh: tuple[str, ...] = ()
    cache_from: tuple[CacheWay, ...] = ()
    cache_to: tuple[CacheWay, ...] = ()
    outputs: tuple[Output, ...] = (Output(),)
    provenance: str = ""
    """empty: none; `min`, `max`."""
    provenance_version: Literal["v0.2", "v1"] = "v0.2"
    """Of SLSA's predicate."""
    builder_id: str = ""
    """A URI that provenance names as the builder; empty: ours."""
    sbom: bool = False
    check: bool = False
    """Judge the Dockerfile, build nothing."""
    outline: bool = False
    """Tell its instructions first (`Outline`)."""
    on_failure: Literal["", "shell"] = ""
    private_addresses: bool = False
    """ADD and contexts may come from loopback, link-local and private addresses; never the fleet's API."""
    logins: Mapping[str, Login] = {}
    """By registry."""


class BuildPlace(Struct):
    """Where a build is to be: the query of `POST /v1/builds`."""

    host: str = ""
    """Id or name; empty: the controller's choice."""
    context: str = ""
    """What builds of the same things are known by: they go to one host, whose cache is warm for them."""
    platform: str = ""
    """`os/arch[/variant]` that the host should run by itself."""


# -- client → host ------------------------------------------------------------------------------------
class Start(Struct, tag="start"):
    request: BuildRequest


class Scanned(Struct, tag="scanned"):
    """Answer to Scan: the root tree object's digest, or why there is none. `warnings`: files left out."""

    ask: int
    root: str = ""
    error: ErrorBody | None = None
    warnings: tuple[str, ...] = ()


class Object(Struct, tag="object"):
    """A piece of a wanted object, in order; `last` ends it. `gone`: it can't be had any more (the file
    changed while it was read; scan again). `base`: this is a tree, as a `model.contexttree.Delta` to that
    one, which the host may have; if it has it not, it wants the tree again, and gets all of it. A tar that
    was asked for comes in the same way, its pieces without a digest."""

    ask: int
    digest: str
    data: bytes = b""
    last: bool = False
    gone: str = ""
    base: str = ""


class Secret(Struct, tag="secret"):
    ask: int
    value: bytes | None = None


class SshData(Struct, tag="ssh"):
    """Bytes of one forwarded agent connection, either way; empty: its end."""

    channel: int
    data: bytes = b""


class Typed(Struct, tag="typed"):
    """Of the client's terminal, to a shell in a failed step; empty: end of input."""

    data: bytes = b""
    rows: int = 0
    cols: int = 0


class Taken(Struct, tag="taken"):
    """So many bytes of Exported were written: the host may send as many more."""

    size: int


FromClient = Start | Scanned | Object | Secret | SshData | Typed | Taken


# -- host → client ------------------------------------------------------------------------------------
class Placed(Struct, tag="placed"):
    """Which host builds, and why that one. The first frame, where a controller chose it."""

    host: str
    why: str = ""


class Scan(Struct, tag="scan"):
    """Make the tree of a local context: of `paths` (all for none), by its ignore file."""

    ask: int
    context: str = ""
    paths: tuple[str, ...] = ()


class Want(Struct, tag="want"):
    """Send these objects of a scanned context, in this order."""

    ask: int
    context: str
    digests: tuple[str, ...]


class SendTar(Struct, tag="send-tar"):
    """Send the stream that is this context, in pieces; the last one ends it."""

    ask: int
    context: str = ""


class AskSecret(Struct, tag="ask-secret"):
    ask: int
    ident: str


class OpenSsh(Struct, tag="open-ssh"):
    channel: int
    ident: str


class Instructed(Struct):
    """One instruction as it was written, on one line."""

    line: int
    source: str


class Outline(Struct, tag="outline"):
    """What the Dockerfile says, in its order."""

    instructions: tuple[Instructed, ...]


class StepBegan(Struct, tag="began"):
    """`name` as people read it: `[builder 2/5] RUN make`."""

    step: int
    name: str
    at: float = 0.0
    line: int = 0


class StepSaid(Struct, tag="said"):
    step: int
    data: bytes
    stderr: bool = False


class StepMoved(Struct, tag="moved"):
    """How far it is: of a pull, a transfer, an export. `total` 0: not known."""

    step: int
    what: str
    current: int = 0
    total: int = 0


class StepEnded(Struct, tag="ended"):
    step: int
    seconds: float = 0.0
    cached: bool = False
    where: str = ""
    """The host whose cache it came from, or that ran it, if another."""
    error: str = ""


class BuildWarning(Struct, tag="warning"):
    code: str
    message: str
    line: int = 0
    column: int = 0
    hint: str = ""


class Exported(Struct, tag="exported"):
    """Bytes of output number `output`, a tar; empty with `last`: its end."""

    output: int
    data: bytes = b""
    last: bool = False


class ShellBegan(Struct, tag="shell"):
    """A shell stands in the failed step's files; StepSaid carries its output, Typed its input."""

    step: int


class Built(Struct):
    """One platform's result."""

    image: str = ""
    """Id; empty where no image was asked for."""
    platform: str = ""
    digest: str = ""
    """Of the manifest, if it was pushed or exported as one."""
    size: int = 0


class Done(Struct, tag="done"):
    images: tuple[Built, ...] = ()
    names: tuple[str, ...] = ()
    digest: str = ""
    """Of the index or manifest that names point to, when known."""
    host: str = ""
    metadata: Mapping[str, str] = {}
    """JSON by key, as `--metadata-file` shows it."""


class Failed(Struct, tag="failed"):
    error: ErrorBody
    line: int = 0
    column: int = 0
    exit_code: int = 0
    """Of the RUN that failed."""


FromHost = (
    Placed
    | Scan
    | Want
    | SendTar
    | AskSecret
    | Outline
    | OpenSsh
    | SshData
    | StepBegan
    | StepSaid
    | StepMoved
    | StepEnded
    | BuildWarning
    | Exported
    | ShellBegan
    | Done
    | Failed
)


# -- frames -------------------------------------------------------------------------------------------
_ENCODER = msgspec.msgpack.Encoder()
FROM_CLIENT: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
FROM_HOST: msgspec.msgpack.Decoder[FromHost] = msgspec.msgpack.Decoder(FromHost)


def pack(message: FromClient | FromHost) -> bytes:
    """One frame. Raises InvalidInput where it would be larger than MAX_FRAME."""
    data = _ENCODER.encode(message)
    if len(data) > MAX_FRAME:
        raise InvalidInput(f"a message of a build has {len(data)} bytes; {MAX_FRAME} are the most")
    return _HEAD.pack(len(data)) + data


def frame_size(head: bytes) -> int:
    """Bytes of the frame that follows these four."""
    size: int = _HEAD.unpack(head)[0]
    return size


class Unframer(Generic[M]):
    """Bytes in, messages out. Raises InvalidInput on what is none, before it has come whole if it is too
    large; keeps a frame at most."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[M]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    @property
    def between(self) -> bool:
        """Whether the stream is at the end of a frame."""
        return not self._buffer

    def feed(self, data: bytes) -> list[M]:
        self._buffer += data
        messages: list[M] = []
        at = 0
        with memoryview(self._buffer) as view:
            while len(view) - at >= _HEAD.size:
                size = _HEAD.unpack_from(view, at)[0]
                if size > MAX_FRAME:
                    raise InvalidInput(f"malformed stream of a build: a frame of {size} bytes")
                end = at + _HEAD.size + size
                if len(view) < end:
                    break
                messages.append(self._message(view[at + _HEAD.size : end]))
                at = end
        del self._buffer[:at]
        return messages

    def _message(self, data: memoryview) -> M:
        try:
            return self._decoder.decode(data)
        except UNREADABLE as error:
            words = " ".join(str(error).split())[:200]
            raise InvalidInput(f"malformed stream of a build: {words}") from error
