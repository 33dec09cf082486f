"""Every setting: its name, type, default and meaning, and where its value comes from.

A setting `x` is the environment variable `ML_X` or the top-level key `x` of penstock.toml; the environment
wins. A secret `x` can also be read from the file named by `x_file`. Streams are tables, `[streams.<name>]`.
Relative paths are relative to the working directory.
"""
