"""Ledgerline's front door: HTTP in, ledger calls out. Knows requests and users; no SQL text, no step code."""
