"""What tests of written files share: the names in a folder, and a folder staged with contents."""

from dmp_cli.storage import atomic as files


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def stage(path, **contents):
    with files.staged_folder(path) as staged:
        for name, content in contents.items():
            (staged / name).write_bytes(content)
