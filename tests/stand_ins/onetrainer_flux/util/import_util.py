"""Stand-in of OneTrainer's scripts/util/import_util.py at commit 23df383."""


def script_imports(allow_zluda=True):
    pass
