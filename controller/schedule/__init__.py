"""From pending instances to hosts, with reasons. Pure."""
