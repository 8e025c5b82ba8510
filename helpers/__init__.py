"""Thin helpers for the notebooks on small-sample deep learning for biomedical images."""
