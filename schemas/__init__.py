"""The contracts of Gristmill: one module per record type. Imports nothing else of ours."""
