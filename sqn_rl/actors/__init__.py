"""Actors: how a Q-network becomes behaviour."""
