"""Figures and tables from records of runs. Reads what REST told; knows no service and no torch."""
