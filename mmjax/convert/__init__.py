"""Public weights in and out. `read` opens files, `table` renames and reshapes arrays,
and every module of `families` is one public format."""
