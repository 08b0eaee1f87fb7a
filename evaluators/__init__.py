"""Suites, by name, and what they are made of. Listing them imports no model."""

from vaebm.registry import Registry

SUITES = Registry("suite", {"ood": "evaluators.ood:OODSuite"}, group="vaebm.suites")
