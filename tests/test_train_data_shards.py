"""Shards: the WebDataset convention, a round trip, damage that is named, and refusals."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from dataset_factory import make_dataset, make_rows, write_index
from training_factory import TINY_TARGET, tiny_config

from edge_runtime.errors import ConfigError, DataError
from train.data.ahead import map_ahead
from train.data.cli import data as data_command
from train.data.index import read_index
from train.data.shard_reader import ShardReader
from train.data.shards import write_shards
from train.dataset_arrays import load_split
from train.engine.shard_source import ShardSource
from train.pretrain import pretrain, pretrain_from


def make_training_set(root, num_patients=4):
    rows = [{**row, "split": "train"} for row in make_rows(root, num_patients=num_patients)]
    write_index(root, rows)
    return rows


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("eyes")
    make_training_set(root)
    return root


@pytest.fixture(scope="module")
def shards(data_dir, tmp_path_factory):
    """About two eyes a shard: 1 MiB would hold all of these, so the writer's limit is lowered."""
    out = tmp_path_factory.mktemp("packed") / "shards"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.data.shards._MIB", 100_000)
        write_shards(data_dir, out, shard_mib=1)
    return out


def source_of(folder, *, num_workers=0, pairing=None):
    reader = ShardReader(folder)
    pairing = torch.arange(len(reader)) if pairing is None else pairing
    return ShardSource(reader, pairing, size_px=32, oct_target=TINY_TARGET, num_workers=num_workers)


def test_every_file_comes_back_byte_by_byte(data_dir, shards):
    reader, index = ShardReader(shards), read_index(data_dir)
    assert len(list(shards.glob("*.tar"))) > 1
    assert len(reader) == len(index.visits)
    for eye, visit in enumerate(index.visits):
        files = reader.read(eye)
        for name in ("cfp", "oct_h", "oct_v"):
            assert getattr(files, name) == visit.files[name].read_bytes()
        assert reader.patient_ids[eye] == visit.patient_id
    assert reader.fingerprint == index.fingerprint()
    assert not reader.synthetic


def test_tar_files_follow_the_webdataset_convention(data_dir, shards):
    """Files of a key follow each other; the key is the name up to the first dot."""
    keys = []
    for path in sorted(shards.glob("*.tar")):
        record = json.loads(path.with_suffix(".json").read_text())
        assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            eyes = [members[k : k + 4] for k in range(0, len(members), 4)]
            for eye, entry in zip(eyes, record["eyes"], strict=True):
                names = [one.name.partition(".") for one in eye]
                assert {key for key, _, _ in names} == {entry["key"]}
                assert [rest for _, _, rest in names] == [
                    *("cfp.png", "oct_h.png", "oct_v.png", "json")
                ]
                who = json.load(tar.extractfile(eye[3]))
                assert set(who) == {"key", "patient_id", "eye"}
                for member, listed in zip(eye[:3], entry["members"].values(), strict=True):
                    assert [member.offset_data, member.size] == listed[:2]
                keys.append(entry["key"])
    assert keys == [f"{number:09d}" for number in range(len(read_index(data_dir).visits))]


def test_neither_dates_nor_sites_nor_labels_are_in_the_shards(shards):
    content = b"".join(path.read_bytes() for path in shards.iterdir())
    for word in (b"2026-01", b"clinic-a", b"glaucoma", b"dr_grade"):
        assert word not in content


def test_the_bytes_do_not_depend_on_threads_or_the_clock(data_dir, tmp_path):
    for name, threads in (("a", 1), ("b", 3)):
        write_shards(data_dir, tmp_path / name, num_threads=threads)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_photograph_may_be_a_jpeg(data_dir, tmp_path):
    import cv2

    shutil.copytree(data_dir, tmp_path / "eyes")
    for path in (tmp_path / "eyes" / "cfp").iterdir():
        path.write_bytes(cv2.imencode(".jpg", cv2.imread(str(path)))[1].tobytes())
    write_shards(tmp_path / "eyes", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as tar:
        assert tar.getnames()[0] == "000000000.cfp.jpg"
    assert ShardReader(tmp_path / "out").read(0).cfp.startswith(b"\xff\xd8")


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_from_shards_are_those_from_memory(data_dir, shards, shuffled):
    memory = load_split(data_dir, "train", size_px=32, with_oct=True)
    config = tiny_config(shuffle_oct=shuffled, num_steps=3, batch_size=4)
    first = pretrain(memory, config)
    from train.pretrain import oct_pairing

    pairing = oct_pairing(len(memory), memory.patient_ids, shuffled=shuffled, seed=config.seed)
    source = source_of(shards, pairing=pairing)
    second = pretrain_from(source, config, fingerprint=source.reader.fingerprint)
    assert second.data_fingerprint == first.data_fingerprint
    assert second.metrics == first.metrics
    weights = first.model.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in second.model.state_dict().items())


@pytest.mark.slow
def test_workers_change_nothing(shards):
    picked = [np.array([3, 1]), np.array([0, 5]), np.array([7, 2]), np.array([4, 4])]
    alone, helped = (list(source_of(shards, num_workers=n).stream(picked)) for n in (0, 2))
    assert len(alone) == len(helped) == 4
    for own, other in zip(alone, helped, strict=True):
        assert torch.equal(own.images_nhwc, other.images_nhwc)
        assert torch.equal(own.oct_targets_nvzx, other.oct_targets_nvzx)


def damaged(shards, folder, position):
    """A copy with one bit of the first shard's `position` flipped."""
    shutil.copytree(shards, folder)
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    return folder


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("picture", ["cfp.png", "oct_h.png", "oct_v.png"])
def test_a_damaged_picture_is_named_with_shard_and_key(shards, tmp_path, picture, workers):
    record = json.loads((shards / "train-000000.json").read_text())
    offset, size, _ = record["eyes"][1]["members"][picture]
    folder = damaged(shards, tmp_path / "bad", offset + size // 2)
    name = picture.partition(".")[0]
    stream = source_of(folder, num_workers=workers).stream([np.array([0]), np.array([1])])
    next(stream)  # the eye before it is whole
    with pytest.raises(
        DataError, match=rf"^shard train-000000.tar, key 000000001: {name} is damaged"
    ):
        next(stream)


def test_a_picture_that_cannot_be_used_is_named_with_shard_and_key(shards, monkeypatch):
    from edge_runtime.errors import FieldOfViewError

    def refuse(*_):
        raise FieldOfViewError("no circular field of view was found")

    monkeypatch.setattr("train.engine.shard_source.load_for_model", refuse)
    with pytest.raises(DataError, match=r"train-000000\.tar, key 000000000: cfp: no circular"):
        next(source_of(shards).stream([np.array([0])]))


def _cut(folder):
    path = folder / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:-512])


def _edit(name, change):
    def damage(folder):
        path = folder / name
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "its index says"),
        (lambda folder: (folder / "train-000000.tar").unlink(), "has None bytes"),
        (lambda folder: (folder / "train-000000.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "shards.json").unlink(), "edge-screen data shard wrote"),
        (lambda folder: (folder / "shards.json").write_text("["), "is no JSON"),
        (_edit("shards.json", lambda r: r.update(format=2)), "has format 2"),
        (_edit("shards.json", lambda r: r.pop("fingerprint")), "incomplete: KeyError"),
        (_edit("shards.json", lambda r: r["shards"].pop()), "shards.json says 8"),
        (_edit("train-000000.json", lambda r: r["eyes"].pop()), "was changed since"),
    ],
)
def test_damaged_indexes_are_refused(shards, tmp_path, damage, message):
    folder = tmp_path / "bad"
    shutil.copytree(shards, folder)
    damage(folder)
    with pytest.raises(DataError, match=message):
        ShardReader(folder)


@pytest.fixture
def flawed(tmp_path):
    """Eight eyes; of two a picture is unreadable, and one has no vertical scan."""
    root = tmp_path / "flawed"
    rows = make_training_set(root)
    (root / rows[1]["cfp"]).write_bytes(b"\x89PNG\r\n\x1a\n cut")
    scan = root / rows[4]["oct_h"]
    scan.write_bytes(scan.read_bytes()[:-20])
    rows[6]["oct_v"] = ""
    write_index(root, rows)
    return root


def test_unreadable_pictures_are_refused_and_all_listed(flawed, tmp_path):
    with pytest.raises(DataError, match="2 of 7 visits have unreadable pictures, 0 may") as caught:
        write_shards(flawed, tmp_path / "out")
    assert "row 3: cfp 'P000_OS.png'" in str(caught.value)
    assert "row 6: 'P002_OD.png'" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["flawed"]  # nothing half written


def test_a_limited_number_may_be_left_out_and_is_recorded(flawed, tmp_path):
    done = write_shards(flawed, tmp_path / "out", max_left_out=2)
    assert (done.num_eyes, done.num_unpaired) == (5, 1)
    head = json.loads((tmp_path / "out" / "shards.json").read_text())
    assert [one["row"] for one in head["left_out"]] == [3, 6]
    index = read_index(flawed)
    used = [v for v in index.visits if v.row_number not in (3, 6) and "oct_v" in v.files]
    reader = ShardReader(tmp_path / "out")
    for eye, visit in enumerate(used):  # never a neighbor's picture
        assert reader.read(eye).cfp == visit.files["cfp"].read_bytes()


def test_what_cannot_be_sharded(data_dir, tmp_path):
    with pytest.raises(DataError, match="exists; give a folder"):
        write_shards(data_dir, tmp_path)
    with pytest.raises(DataError, match=r"'val' .* has no visit with a CFP and both scans"):
        write_shards(data_dir, tmp_path / "out", split="val")
    with pytest.raises(ConfigError, match="shard_mib 0"):
        write_shards(data_dir, tmp_path / "out", shard_mib=0)


def test_the_command(tmp_path):
    make_dataset(tmp_path / "eyes")
    arguments = ["shard", str(tmp_path / "eyes"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(data_command, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["num_eyes"], record["num_shards"], record["left_out"]) == (2, 1, [])
    arguments[-1] += "2"
    assert "2 eyes in 1 shards" in CliRunner().invoke(data_command, arguments).output


@pytest.mark.parametrize("num_threads", [1, 3])
def test_mapping_ahead_keeps_the_order_and_the_bound(num_threads):
    drawn = []

    def items():
        for number in range(20):
            drawn.append(number)
            yield number

    results = map_ahead(lambda n: n * n, items(), num_threads=num_threads, ahead=4)
    for number, result in enumerate(results):
        assert result == number**2
        assert len(drawn) <= number + 4


def test_mapping_ahead_raises_in_place():
    results = map_ahead(lambda n: 1 // n, [2, 1, 0, 3], num_threads=2, ahead=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(ConfigError, match="ahead 0"):
        list(map_ahead(str, [1], num_threads=1, ahead=0))
