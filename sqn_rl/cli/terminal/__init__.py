"""What the commands share of a terminal: the display of a run, streams, and completion of a command line."""
