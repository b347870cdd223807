"""Actors: they select actions."""
