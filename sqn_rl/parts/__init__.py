"""The parts of an agent: a folder for each slot, named as in ``components/``."""
