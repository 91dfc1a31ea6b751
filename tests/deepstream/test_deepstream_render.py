"""Rendered configs of every device and version: values, keys that exist there, refusals."""

import itertools
from pathlib import Path

import onnx
import pytest
from deepstream import appconfig, devices, inferconfig, keyfile, keys
from deepstream.devices import BOARDS, dla_core, lowest_opset, resolve
from deepstream.errors import DeepStreamError
from deepstream.releases import RELEASES, highest_opset
from deepstream.render import Model, Video, engine_file, read_model, render, write_release

MODEL = Model("chosen", "model.onnx", (3, 544, 960), ("output_bbox/BiasAdd", "output_cov/Sigmoid"))
# Every board with every DeepStream that runs on it.
INSTALLED = [
    (name, release.deepstream)
    for name, release in itertools.product(BOARDS, RELEASES.values())
    if BOARDS[name].gpu in release.gpus
]


@pytest.fixture
def texts(repository, synthetic):
    def make(device, *, engine="gpu", model=MODEL, numbers=None, video=None, **options):
        return render(
            device,
            engine=engine,
            model=model,
            classes=options.pop("classes", synthetic.classes),
            clustering=numbers or synthetic.clustering(),
            video=video or Video("file://clip.mp4", 1920, 1080),
            templates=repository / "ds_configs",
            **options,
        )

    return make


def groups_of(texts, name):
    return keyfile.parse(texts[name], Path(name))


@pytest.mark.parametrize(("name", "version"), INSTALLED)
def test_no_config_has_a_key_that_its_deepstream_lacks(texts, name, version):
    video = Video("file://clip.mp4", 1920, 1080, streams=2, tracker=True)
    rendered = texts(resolve(name, {"deepstream": version}), video=video)
    for file, text in rendered.items():
        if file == "labels.txt":
            continue
        find = keys.nvinfer_key if file.startswith("config_infer") else keys.app_key
        for group_name, group in keyfile.parse(text, Path(file)).items():
            for key in group.values:
                known = find(group_name, key)
                assert known is not None, f"{file}: [{group_name}] {key}"
                assert known.known_to(version), f"{file}: {key} in DeepStream {version}"
                assert known.instead is None, f"{file}: {key} is deprecated"


@pytest.mark.parametrize(("name", "version"), INSTALLED)
def test_values_come_back_as_they_were_meant(texts, name, version, tmp_path, synthetic):
    device = resolve(name, {"deepstream": version})
    video = Video("file://clip.mp4", 1280, 720, streams=2)
    write_release(tmp_path, texts(device, video=video), {})
    (tmp_path / "model.onnx").touch()
    infer = inferconfig.load(tmp_path / "config_infer_primary.txt")
    assert infer.dims == (3, 544, 960)
    assert infer.batch_size == 2
    assert infer.network_mode == {"fp32": 0, "fp16": 2}[device.precision]
    assert infer.scale_factor == pytest.approx(1 / 255, rel=1e-6)
    assert (infer.color_format, infer.offsets, infer.maintain_aspect_ratio) == (0, (), False)
    assert infer.cluster_mode == inferconfig.NMS
    assert infer.labels == tuple(synthetic.classes)
    assert infer.num_classes == 2
    for attributes in infer.classes:
        assert attributes.pre_cluster_threshold == attributes.post_cluster_threshold == 0.6
        assert (attributes.nms_iou_threshold, attributes.topk) == (0.3, 50)
    app = appconfig.load(tmp_path / "app.txt")
    assert [source.location for source in app.sources] == [str(tmp_path / "clip.mp4")] * 2
    assert (app.mux.width, app.mux.height, app.mux.batch_size) == (1280, 720, 2)
    assert [(s.type, s.sync, s.source_id) for s in app.sinks] == [(1, False, 0), (1, False, 1)]
    assert (app.osd, app.tiler) == (None, None)
    assert app.file_loop and app.perf_interval_s == 5
    film = appconfig.load(tmp_path / "app_video.txt")
    assert (film.sinks[0].output_file, film.kitti_dir) == ("video.mp4", tmp_path / "kitti")
    assert not film.file_loop


def test_recipe_defects_are_gone(texts):
    """Swapped dims, DBSCAN without minBoxes, inert keys, wrong engine name, absolute paths."""
    rendered = texts(resolve("nano"))
    infer = groups_of(rendered, "config_infer_primary.txt")
    assert infer["property"].text("infer-dims") == "3;544;960"
    assert infer["property"].text("model-engine-file") == "model.onnx_b1_gpu0_fp16.engine"
    assert infer["property"].integer("network-mode") == 2
    for inert in ("is-classifier", "classifier-threshold", "group-threshold", "threshold"):
        assert all(inert not in group for group in infer.values())
    assert rendered["labels.txt"] == "mask\nno-mask\n"
    for name in rendered.keys() - {"labels.txt"}:
        for group in groups_of(rendered, name).values():
            assert not any(value.startswith("/") for value in group.values.values())
    benchmark = groups_of(rendered, "app.txt")
    assert benchmark["sink0"].integer("type") == 1 and benchmark["sink0"].integer("sync") == 0


def test_dla_and_int8(texts):
    device = resolve("xavier_nx", {"precision": "int8"})
    rendered = texts(device, engine="dla1", calibration="calibration.trt8.5.2.bin")
    prop = groups_of(rendered, "config_infer_primary.txt")["property"]
    assert (prop.integer("enable-dla"), prop.integer("use-dla-core")) == (1, 1)
    assert prop.integer("network-mode") == 1
    assert prop.text("int8-calib-file") == "calibration.trt8.5.2.bin"
    assert prop.text("model-engine-file") == "model.onnx_b1_dla1_int8.engine"


def test_gpu_config_says_nothing_of_the_dla(texts):
    prop = groups_of(texts(resolve("xavier")), "config_infer_primary.txt")["property"]
    assert "enable-dla" not in prop and "use-dla-core" not in prop and "int8-calib-file" not in prop


def test_dbscan_and_hybrid_carry_their_keys(texts, synthetic):
    numbers = synthetic.clustering(**{"eps": 0.5, "minBoxes": 2})
    for mode, nms in ((1, False), (3, True)):
        rendered = texts(resolve("orin"), numbers={**numbers, "cluster-mode": mode})
        group = groups_of(rendered, "config_infer_primary.txt")["class-attrs-1"]
        assert (group.number("eps"), group.integer("minBoxes")) == (0.5, 2)
        assert ("nms-iou-threshold" in group) == nms
    skipped = synthetic.clustering(**{"eps": 0.5, "minBoxes": 0})
    with pytest.raises(DeepStreamError, match="minBoxes must be 1 or more"):
        texts(resolve("orin"), numbers={**skipped, "cluster-mode": 1})


def test_all_boxes_is_the_absence_of_topk(texts, synthetic):
    rendered = texts(resolve("orin"), numbers=synthetic.clustering(topk=-1))
    assert "topk" not in groups_of(rendered, "config_infer_primary.txt")["class-attrs-0"]


def test_etlt_names_its_key_only_where_it_loads(texts):
    model = Model("chosen", "model.etlt", (3, 544, 960), MODEL.output_names)
    prop = groups_of(texts(resolve("nano"), model=model), "config_infer_primary.txt")["property"]
    assert prop.text("tlt-encoded-model") == "model.etlt"
    # The key is secret and enters when the config is pushed.
    assert "tlt-model-key" not in prop and "onnx-file" not in prop
    with pytest.raises(DeepStreamError, match=r"7.1 \(TensorRT 10.3.0\) is not known to load"):
        texts(resolve("orin"), model=model)


def test_cameras_are_live_and_encode_as_the_board_can(texts):
    cameras = {
        "v4l2": {"device": 1, "width": 640, "height": 480, "fps": 15},
        "rtsp": {"uri": "rtsp://10.0.0.5/stream"},
    }
    video = Video("file://clip.mp4", 1920, 1080, cameras=cameras)
    rendered = texts(resolve("nano"), video=video)
    usb = groups_of(rendered, "app_camera_v4l2.txt")
    assert usb["source0"].integer("type") == 1
    assert usb["source0"].integer("camera-v4l2-dev-node") == 1
    assert (usb["streammux"].integer("width"), usb["streammux"].integer("height")) == (640, 480)
    assert usb["streammux"].integer("live-source") == 1
    assert usb["streammux"].integer("batched-push-timeout") == 66667
    csi = groups_of(rendered, "app_camera_csi.txt")["source0"]
    assert (csi.integer("type"), csi.integer("camera-csi-sensor-id")) == (5, 0)
    network = groups_of(rendered, "app_camera_rtsp.txt")["source0"]
    assert (network.integer("type"), network.text("uri")) == (4, "rtsp://10.0.0.5/stream")
    assert usb["sink0"].integer("enc-type") == 0
    # deepstream-app sets 0 where there is none, which is one key frame for all who ever look in.
    assert usb["sink0"].integer("iframeinterval") == 15
    assert usb["osd"].text("font") == "Serif"
    # The Orin Nano has no encoder.
    soft = groups_of(texts(resolve("orin_nano")), "app_camera_v4l2.txt")["sink0"]
    assert soft.integer("enc-type") == 1
    with pytest.raises(DeepStreamError, match=r"cameras\.v4l2: node unknown"):
        texts(resolve("nano"), video=Video("", 2, 2, cameras={"v4l2": {"node": 1}}))


def test_tracker_library_follows_the_version(texts):
    video = Video("file://clip.mp4", 1920, 1080, tracker=True)
    old = groups_of(texts(resolve("nano", {"deepstream": "5.1"}), video=video), "app_video.txt")
    new = groups_of(texts(resolve("orin"), video=video), "app_video.txt")
    assert old["tracker"].text("ll-lib-file").endswith("libnvds_mot_iou.so")
    assert new["tracker"].text("ll-lib-file").endswith("libnvds_nvmultiobjecttracker.so")
    assert "tracker" not in groups_of(texts(resolve("orin")), "app_video.txt")
    assert "tracker" not in groups_of(texts(resolve("orin"), video=video), "app.txt")


@pytest.mark.parametrize(
    ("name", "settings", "engine", "message"),
    [
        (
            "nano",
            {"precision": "int8"},
            "gpu",
            "Jetson Nano has no int8, it has fp32, fp16; set fp16",
        ),
        ("tx2", {"precision": "int8"}, "gpu", "Jetson TX2 has no int8"),
        ("thor", {"precision": "int8"}, "gpu", "takes no INT8 calibration cache"),
        ("nano", {}, "dla0", "Jetson Nano has no 'dla0', it has gpu; take dla0 out"),
        ("xavier_nx", {}, "dla2", "has no 'dla2', it has gpu, dla0, dla1"),
        ("orin_nx", {"dla_cores": 1}, "dla1", "has no 'dla1', it has gpu, dla0"),
        ("xavier", {"precision": "fp32"}, "dla0", "a DLA runs fp16 or int8, not fp32; set fp16 or"),
        ("nano", {"deepstream": "6.2"}, "gpu", "6.2 does not run on Jetson Nano, these do: 5.0"),
        ("xavier", {"deepstream": "7.0"}, "gpu", "7.0 does not run on Jetson AGX Xavier"),
        ("nano", {"deepstream": "4.0"}, "gpu", "DeepStream 4.0: unknown release"),
        ("desk", {}, "gpu", "unknown board 'desk', known: nano, tx2"),
        ("xavier", {"precision": "int8"}, "gpu", "int8 needs a calibration cache"),
        ("xavier", {"precisions": ["fp8"]}, "gpu", "precisions: fp8 unknown"),
    ],
)
def test_what_the_hardware_lacks_is_refused(texts, name, settings, engine, message):
    with pytest.raises(DeepStreamError, match=message):
        texts(resolve(name, settings), engine=engine)


def test_a_device_is_a_board_with_a_few_other_facts():
    device = resolve("door", {"board": "orin_nx", "dla_cores": 1, "deepstream": 6.3, "host": "a"})
    assert (device.name, device.title, device.engines) == (
        "door",
        "Jetson Orin NX",
        ("gpu", "dla0"),
    )
    assert device.tensorrt == "8.5.2"
    assert dla_core(device, "dla0", "fp16") == 0


def test_a_release_is_found_as_deepstream_app_tells_it():
    assert resolve("nano", {"deepstream": "6.0.0"}).deepstream == "6.0"
    assert resolve("xavier", {"deepstream": "6.3.0"}).tensorrt == "8.5.2"


def test_opset_is_the_oldest_devices():
    assert lowest_opset({}) == devices.HIGHEST_EXPORTED_OPSET == 17
    assert lowest_opset({"orin": {}, "thor": None}) == 17
    assert lowest_opset({"orin": {}, "nano": {}}) == 13
    assert lowest_opset({"orin": {}, "nano": {"deepstream": "5.1"}}) == 11
    assert lowest_opset({"xavier": {"deepstream": "6.1"}}) == 13
    assert lowest_opset({"orin": {"max_opset": 12}}) == 12


@pytest.mark.parametrize(
    ("tensorrt", "opset"),
    [("7.1.3", 11), ("8.0.1", 13), ("8.2.1", 13), ("8.4.0", 13), ("8.4.1", 17), ("8.5.2", 17),
     ("8.6.2", 17), ("10.3.0", 20)],
)  # fmt: skip
def test_opsets_of_tensorrt(tensorrt, opset):
    assert highest_opset(tensorrt) == opset


def test_engine_names_are_nvinfers():
    assert engine_file("a.onnx", 4, "gpu", "fp16") == "a.onnx_b4_gpu0_fp16.engine"
    assert engine_file("a.etlt", 1, "dla0", "int8") == "a.etlt_b1_dla0_int8.engine"


@pytest.mark.parametrize("names", [[], ["mask", "mask"], ["a b"], ["a;b"], [""]])
def test_class_names_must_fit_a_labels_file(texts, names):
    with pytest.raises(DeepStreamError, match="classes"):
        texts(resolve("nano"), classes=names)


def test_every_class_needs_its_numbers(texts, synthetic):
    numbers = synthetic.clustering()
    with pytest.raises(DeepStreamError, match="no entry for class 'cap'"):
        texts(resolve("nano"), classes=["mask", "cap"], numbers=numbers)
    del numbers["classes"]["mask"]["nms-iou-threshold"]
    with pytest.raises(DeepStreamError, match="class 'mask' lacks nms-iou-threshold"):
        texts(resolve("nano"), numbers=numbers)


def test_a_misspelt_key_in_a_template_is_found(repository, tmp_path, synthetic):
    for template in (repository / "ds_configs").iterdir():
        text = template.read_text().replace("cluster-mode=", "cluster-mod=")
        (tmp_path / template.name).write_text(text)
    with pytest.raises(DeepStreamError, match=r"no DeepStream knows cluster-mod in \[property\]"):
        render(
            resolve("nano"),
            engine="gpu",
            model=MODEL,
            classes=synthetic.classes,
            clustering=synthetic.clustering(),
            video=Video("file://clip.mp4", 1920, 1080),
            templates=tmp_path,
        )


def test_batch_of_the_export_must_fit_the_streams(texts, squares, synthetic, tmp_path, caplog):
    assert read_model(squares, "chosen", shipped="model.onnx").batch is None
    path = synthetic.square_model(tmp_path / "four.onnx", batch=4)
    fixed = read_model(path, "chosen", shipped="model.onnx")
    assert fixed.batch == 4
    four = Video("file://clip.mp4", 1920, 1080, streams=4)
    texts(resolve("xavier"), model=fixed, video=four, engine="dla0")
    assert "DLA" not in caplog.text
    with pytest.raises(DeepStreamError, match=r"streams: 1, but .* for batches of 4"):
        texts(resolve("xavier"), model=fixed)
    texts(resolve("xavier"), video=four, engine="dla0")
    assert "keeps an open batch dimension off the DLA" in caplog.text


def test_model_facts_come_from_the_onnx(squares, synthetic, tmp_path):
    model = read_model(squares, "chosen", shipped="model.etlt")
    assert model.dims == (3, synthetic.height, synthetic.width)
    assert model.output_names == ("output_bbox/BiasAdd", "output_cov/Sigmoid")
    assert model.key == "tlt-encoded-model"
    free = synthetic.square_model(tmp_path / "free.onnx", width=None, height=None)
    with pytest.raises(DeepStreamError, match="N,C,H,W of a fixed size"):
        read_model(free, "chosen", shipped="model.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(DeepStreamError, match="not an ONNX model"):
        read_model(tmp_path / "text.onnx", "chosen", shipped="model.onnx")
    proto = onnx.load(squares)
    proto.graph.output[1].name = "coverage_of_bbox"
    onnx.save(proto, tmp_path / "two.onnx")
    with pytest.raises(DeepStreamError, match="one output with 'bbox' in its name"):
        read_model(tmp_path / "two.onnx", "chosen", shipped="model.onnx")
