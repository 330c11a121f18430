"""Public weights in and out.

`read` opens files, `name_table` renames and reshapes arrays, and every module of
`formats` is one public format.
"""
