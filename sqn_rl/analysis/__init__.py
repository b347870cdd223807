"""Analysis: finished runs, compared and swept."""
