"""The rig: several hosts for tests and demos, behind one interface (`base.Rig`), by interchangeable drivers."""
