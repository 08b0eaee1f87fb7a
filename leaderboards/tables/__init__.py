"""The tables of the paper and their companions: a file per suite, from measurements to boards."""
