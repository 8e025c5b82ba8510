"""The experiments behind the recorded tables: a module a chapter, a function a row; `run.ipynb` executes one row."""
