"""Runs in the formats of other trainers: one module for each family of formats; `driver` reads, counts and writes."""
