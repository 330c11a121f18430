"""One module a verb of the `mmjax` command; see mmjax/cli.py."""
