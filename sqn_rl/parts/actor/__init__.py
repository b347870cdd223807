"""Actors: how an action is chosen."""
