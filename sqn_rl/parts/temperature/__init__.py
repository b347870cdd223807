"""Temperatures: α, fixed, annealed or learned."""
