"""Files appear whole or not at all."""

import errno
import json
from pathlib import Path

import pytest
from detectnet_v2.errors import DetectNetError
from detectnet_v2.whole_file import refuse_existing, whole_file, write_json, write_text


def test_file_appears_at_the_end_with_its_folder(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with whole_file(path) as part:
        part.write_text("content")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail():
        with whole_file(path) as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DetectNetError, match=r"cannot write .*/file/below: ") as caught:
        write_text(tmp_path / "file" / "below", "content")
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_with_a_remedy(tmp_path, monkeypatch):
    """As HDF5 reports it: the number is right, the text is a page."""

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "Can't write\n(time = now\n, errno = 28)")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(DetectNetError) as caught:
        write_text(tmp_path / "file", "content")
    assert str(caught.value) == (
        f"cannot write {tmp_path}/file: No space left on device; "
        "free space or put results_dir on another disk"
    )
    assert list(tmp_path.iterdir()) == []


def test_json_ends_with_a_line_break(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2.5]})
    text = (tmp_path / "x.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == {"a": [1, 2.5]}


def test_existing_files_are_refused(tmp_path):
    refuse_existing(tmp_path / "absent")
    with pytest.raises(DetectNetError, match="exists already"):
        refuse_existing(tmp_path)
