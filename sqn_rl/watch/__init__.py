"""``sqn-watch``: a page that shows a run while it is trained, or afterwards, served to this machine only."""
