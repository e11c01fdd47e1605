"""From words on the command line to specs, by docker's rules. Pure."""
