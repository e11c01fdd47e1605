"""Names for containers that were given none: adjective_noun, from the container's own id. Pure."""

from __future__ import annotations

from collections.abc import Container

_ADJECTIVES = """
able amber ample arctic azure balmy bold brave breezy bright brisk broad calm candid clear
clever coral cosmic crisp daring deep eager early easy fair fleet fluent fond frank free fresh
gentle glad golden grand green hardy hearty honest humble ivory jolly jovial keen kind lively
loyal lucid lunar mellow merry mighty mild modest neat nimble noble patient placid plucky
polite proud quick quiet rapid ready rosy royal rustic serene sharp silent silver simple sleek
smart snowy solar solid spry stable steady stout sturdy sunny swift tidy tranquil trusty upbeat
vast vivid warm wise witty zesty
"""
_NOUNS = """
albatross anchor anemone atoll ballast barge bay beacon bight boatswain bosun bow breeze brig
buoy cabin canal canoe captain caravel channel clipper coast compass coral cove crest current
cutter deck delta dinghy dock dolphin estuary fathom ferry fjord foam frigate galley gannet
gull gulf halyard harbour haven heron horizon hull island isthmus jetty keel kelp ketch lagoon
lantern lighthouse lugger marina mariner mast moor narwhal navigator oar oasis ocean orca
osprey otter paddle pelican petrel pier pilot porpoise port quay raft reef rigging river rudder
sail schooner sextant shoal shore skiff sloop sound spray squall starboard stern strait surf
tern tide tiller trawler tug voyage wave wharf yawl
"""
ADJECTIVES = tuple(_ADJECTIVES.split())
NOUNS = tuple(_NOUNS.split())


def invent(ident: str, taken: Container[str]) -> str:
    """A free name; the same id and the same names taken give the same answer."""
    seed = int(ident[:16], 16)
    name = f"{ADJECTIVES[seed % len(ADJECTIVES)]}_{NOUNS[seed // 1009 % len(NOUNS)]}"
    if name not in taken:
        return name
    return next(f"{name}{n}" for n in range(2, 1 << 30) if f"{name}{n}" not in taken)
