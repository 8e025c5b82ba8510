"""Readers, one for each format of files and each public data set."""
