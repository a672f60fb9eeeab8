"""Ledgerline's domain: the ledger, the queue, the engine, and what steps are made of."""
