"""The rig: several hosts for tests and demos, behind one interface, by interchangeable drivers."""
