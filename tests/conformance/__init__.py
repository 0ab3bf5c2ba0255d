"""Suites that every implementation of a family passes; a third party adds its own to the lists."""
