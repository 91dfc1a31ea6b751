"""Config files as nvinfer and deepstream-app read them: values, defaults, warnings, refusals."""

import logging
from pathlib import Path

import pytest
from deepstream import appconfig, inferconfig, keyfile
from deepstream.errors import DeepStreamError
from deepstream.labels import read_labels


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.INFO, logger="deepstream")

    def read() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    return read


@pytest.fixture
def infer(tmp_path):
    """Write an nvinfer config from [property] lines and further groups, and read it."""
    (tmp_path / "model.onnx").touch()
    (tmp_path / "labels.txt").write_text("mask\nno-mask\n")

    def make(*lines, groups="", **overrides):
        path = tmp_path / "infer.txt"
        text = ["[property]", "onnx-file=model.onnx", "num-detected-classes=2", *lines, groups]
        path.write_text("\n".join(text))
        return inferconfig.load(path, overrides=overrides)

    return make


@pytest.fixture
def app(tmp_path):
    """Write a deepstream-app config and read it; the defaults are one clip and a fakesink."""

    def make(
        source="type=2\nuri=file://clip.mp4",
        sink="type=1",
        mux="width=640\nheight=480",
        more="",
        **options,
    ):
        path = tmp_path / "app.txt"
        path.write_text(
            f"[source0]\nenable=1\n{source}\n[streammux]\n{mux}\n[sink0]\nenable=1\n{sink}\n{more}\n"
        )
        return appconfig.load(path, **options)

    return make


def test_key_file_reads_what_glib_reads():
    text = "# comment\n[a]\nx = 1 = 2 \n\n[b]\nlist=1;2;3;\n[a] \ny=0.5\nx=3\nz=a\\sb\\\\\n"
    groups = keyfile.parse(text, Path("some.txt"))
    assert groups["a"].values == {"x": "3", "y": "0.5", "z": "a\\sb\\\\"}
    assert groups["a"].lines == {"x": 9, "y": 8, "z": 10}
    assert groups["b"].integers("list") == [1, 2, 3]
    assert groups["a"].text("z") == "a b\\"


def test_blanks_at_the_end_of_a_value_are_read_as_glib_reads_them():
    """nvinfer does not find `labels.txt `, and takes 2 and a blank for the number 2."""
    text = "[a]\r\npath = labels.txt \r\nnumber=2\t\nflag=1 \nlist=1; 2 ;\n"
    group = keyfile.parse(text, Path("some.txt"))["a"]
    assert group.text("path") == "labels.txt "
    assert (group.integer("number"), group.boolean("flag")) == (2, True)
    assert group.integers("list") == [1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=1\n", r"some.txt:1: 'x=1' stands before the first \[group\]"),
        ("[a]\nnonsense\n", r"some.txt:2: 'nonsense' is neither key=value nor"),
        ("[a\n", r"some.txt:1: '\[a' is not a \[group\]"),
        ("[a]\nx=many\n", r"some.txt:2: x=many in \[a\] is not an integer"),
    ],
)
def test_key_file_names_the_line(text, message):
    with pytest.raises(DeepStreamError, match=message):
        keyfile.parse(text, Path("some.txt"))["a"].integer("x")


def test_nvinfer_defaults(infer):
    config = infer()
    assert (config.batch_size, config.unique_id, config.interval) == (1, 15, 0)
    assert (config.scale_factor, config.offsets, config.color_format) == (1.0, (), 0)
    assert config.dims is None
    assert config.num_classes == 2
    # Without cluster-mode DeepStream 6.0 and later take NMS with these two numbers.
    assert config.cluster_mode == inferconfig.GROUP_RECTANGLES
    assert config.classes[0].topk == 20
    assert config.classes[0].nms_iou_threshold == 0.5
    assert config.classes[0].pre_cluster_threshold == 0.2


def test_group_rectangles_overwrite_the_users_numbers(infer, warnings):
    config = infer("cluster-mode=0", groups="[class-attrs-all]\ntopk=7\nnms-iou-threshold=0.2")
    assert (config.classes[0].topk, config.classes[0].nms_iou_threshold) == (20, 0.5)
    assert any("becomes NMS with topk=20" in line for line in warnings())


def test_attributes_of_all_hold_until_a_class_says_otherwise(infer):
    groups = "[class-attrs-1]\ntopk=5\n[class-attrs-all]\ntopk=9\neps=0.4\nminBoxes=3\n"
    first, second = infer("cluster-mode=1", groups=groups).classes
    assert (first.topk, first.eps, first.min_boxes) == (9, 0.4, 3)
    assert (second.topk, second.eps, second.min_boxes) == (5, 0.4, 3)


def test_old_names_work_with_a_warning(infer, warnings):
    config = infer(
        "input-dims=3;544;960;0",
        "is-classifier=0",
        "enable-dbscan=1",
        groups="[class-attrs-all]\nthreshold=0.35",
    )
    assert config.dims == (3, 544, 960)
    assert config.cluster_mode == inferconfig.DBSCAN
    assert config.classes[0].pre_cluster_threshold == 0.35
    for key, instead in (("input-dims", "infer-dims"), ("threshold", "pre-cluster-threshold")):
        assert any(
            f"'{key}' has been deprecated, use '{instead}' instead" in line for line in warnings()
        )


def test_infer_dims_win_over_old_ones(infer):
    assert infer("uff-input-dims=3;1;1;0", "infer-dims=3;544;960").dims == (3, 544, 960)


def test_unknown_keys_only_warn(infer, warnings):
    infer("cluster-mode=2", "net-scale-faktor=1", groups="[class-attrs-0]\nmin-boxes=4\n")
    text = "\n".join(warnings())
    assert "infer.txt:5: unknown or legacy key specified 'net-scale-faktor' for group" in text
    # minBoxes is the only key in camel case, and the obvious spelling is ignored.
    assert "unknown or legacy key specified 'min-boxes' for group [class-attrs-0]" in text


def test_app_properties_override_the_file(infer):
    config = infer("batch-size=4", "interval=2", **{"batch-size": 8, "interval": None})
    assert (config.batch_size, config.interval) == (8, 2)


def test_int8_without_a_readable_cache_is_noticed(infer, warnings, tmp_path):
    infer("cluster-mode=2", "network-mode=1", "int8-calib-file=cal.bin")
    assert any("devices fall back to FP16" in line for line in warnings())


@pytest.mark.parametrize(
    ("lines", "groups", "message"),
    [
        (["batch-size=0"], "", "batch-size=0 .* is not at least 1"),
        (["cluster-mode=7"], "", "cluster-mode=7 .* is not at most 4"),
        (["infer-dims=3;544"], "", "is not 3 sizes, channels;height;width"),
        (["uff-input-dims=3;544;960;1"], "", "is not an NCHW shape"),
        (["process-mode=2"], "", "secondary inference"),
        (["network-type=1"], "", "only detectors"),
        (["is-classifier=1"], "", "only detectors"),
        (["parse-bbox-func-name=f"], "", "not available off the device"),
        ([], "[class-attrs-2]\ntopk=1", "num-detected-classes is 2"),
        ([], "[class-attrs-x]\ntopk=1", "class-attrs-all or a class id"),
        ([], "[class-attrs-all]\ntopk=-1", "topk=-1 .* is not at least 0"),
        ([], "[class-attrs-all]\nnms-iou-threshold=1.5", "is not at most 1"),
        (["labelfile-path=no.txt"], "", "no.txt: labels file: No such file"),
        (["onnx-file=no.onnx"], "", "no.onnx does not exist"),
    ],
)
def test_nvinfer_refusals(infer, lines, groups, message):
    with pytest.raises(DeepStreamError, match=message):
        infer(*lines, groups=groups)


def test_labels_lose_their_place_to_empty_lines(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes(b"mask\n\nno-mask;other\r\n")
    assert read_labels(path) == ["mask", "no-mask"]
    path.write_bytes(b"mask\r\nno-mask\r\n")
    assert read_labels(path) == ["mask\r", "no-mask\r"]
    path.write_bytes(b"mask;no-mask\n")
    assert read_labels(path) == ["mask"]


def test_app_defaults(app, tmp_path):
    config = app()
    assert [source.location for source in config.sources] == [str(tmp_path / "clip.mp4")]
    assert (config.mux.width, config.mux.height, config.mux.batch_size) == (640, 480, 1)
    assert config.mux.timeout_us == -1
    assert (config.gie, config.osd, config.tiler, config.kitti_dir) == (None, None, None, None)
    assert config.perf_interval_s is None
    assert not config.file_loop


def test_groups_that_are_switched_off_are_not_read(app):
    more = "[source1]\nenable=0\ntype=99\n[sink1]\nenable=0\ntype=2\n[tiled-display]\nenable=0\n"
    config = app(more=more)
    assert len(config.sources) == len(config.sinks) == 1


def test_multi_uri_counts_up(app, tmp_path):
    config = app(source="type=3\nuri=file://clip%d.mp4\nnum-sources=3")
    names = [Path(source.location).name for source in config.sources]
    assert names == ["clip0.mp4", "clip1.mp4", "clip2.mp4"]


def test_option_i_replaces_uris(app):
    assert app(uris=("file:///x.mp4",)).sources[0].location == "/x.mp4"


def test_cameras(app):
    camera = "camera-width=1280\ncamera-height=720\ncamera-fps-n=30\ncamera-fps-d=1"
    (usb,) = app(source=f"type=1\n{camera}\ncamera-v4l2-dev-node=2").sources
    assert (usb.location, usb.width, usb.height, usb.frame_rate) == ("/dev/video2", 1280, 720, 30)
    assert usb.live
    (network,) = app(source="type=4\nuri=rtsp://camera/1\nselect-rtp-protocol=4").sources
    assert (network.location, network.tcp, network.live) == ("rtsp://camera/1", True, True)


def test_primary_gie_colours_and_overrides(app, tmp_path):
    more = (
        "[primary-gie]\nenable=1\nconfig-file=infer.txt\nbatch-size=4\nlabelfile-path=l.txt\n"
        "bbox-border-color=0;0;1;1\nbbox-border-color1=0;1;0;1\nbbox-bg-color0=1;1;1;0.5\n"
    )
    gie = app(more=more).gie
    assert gie.config_file == tmp_path / "infer.txt"
    assert gie.overrides["batch-size"] == 4
    assert gie.overrides["labelfile-path"] == str(tmp_path / "l.txt")
    assert gie.border_color == (0, 0, 1, 1)
    assert gie.border_colors == {1: (0, 1, 0, 1)}
    assert gie.fill_colors == {0: (1, 1, 1, 0.5)}


def test_unknown_app_keys_and_groups_only_warn(app, warnings):
    app(more="[ds-example]\nenable=1\n[osd]\nenable=1\nborder=3\n[tracker]\nenable=1\n")
    text = "\n".join(warnings())
    assert "unknown or unsupported group [ds-example]" in text
    assert "unknown key 'border' for group [osd]" in text
    assert "nothing is tracked here" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "type=5"}, "a CSI camera needs a Jetson"),
        ({"source": "type=2"}, r"\[source0\] type=2 needs uri"),
        ({"source": "type=9"}, "type=9 .* is not at most 6"),
        ({"source": "type=2\nuri=clip.mp4"}, "has no scheme"),
        ({"sink": "type=2"}, r"\[sink0\] type=2 \(a display\) is not here"),
        ({"sink": "type=3"}, "type=3 needs output-file"),
        ({"mux": "width=640"}, r"\[streammux\] needs height"),
        ({"mux": "width=641\nheight=480"}, "width=641 must be even"),
        ({"more": "[primary-gie]\nenable=1"}, r"\[primary-gie\] needs config-file"),
        (
            {"more": "[primary-gie]\nenable=1\nconfig-file=x\nbbox-border-color0=1;0"},
            "four numbers from 0 to 1",
        ),
    ],
)
def test_app_refusals(app, arguments, message):
    with pytest.raises(DeepStreamError, match=message):
        app(**arguments)


def test_no_source_no_sink_no_text_file(tmp_path):
    path = tmp_path / "app.txt"
    path.write_text("[streammux]\nwidth=4\nheight=4\n")
    with pytest.raises(DeepStreamError, match=r"no \[sourceN\] group is enabled"):
        appconfig.load(path)
    with pytest.raises(DeepStreamError, match=r"reads .txt configs"):
        appconfig.load(tmp_path / "app.yml")
    with pytest.raises(DeepStreamError, match=r"none.txt: No such file"):
        appconfig.load(tmp_path / "none.txt")
