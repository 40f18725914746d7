"""Conversations that were made elsewhere: one module for each format; what is common to them is in `write` and `check`."""
