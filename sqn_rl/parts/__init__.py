"""What an agent is made of: a folder for each slot, named as in ``components/``."""
