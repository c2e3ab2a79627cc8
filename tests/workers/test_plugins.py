"""A process imports plugins in one version, knows what they hold while their job lasts, and names every fault."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import plugin_files as made
import pytest
import torch

from orchestrator.spec.plugin_files import find
from tasks import TASKS, plugged
from tasks.backbones.timm_names import check_timm_name
from tasks.errors import PluginError
from workers.plugin_code import ABSENT, Plugin, PluginCode, digest_of, installed, mark
from workers.plugins import use
from workers.trial import TrialSpec


@pytest.fixture(autouse=True)
def as_a_new_process() -> Iterator[None]:
    with made.forgotten():
        yield


def test_a_plugin_adds_a_model_a_metric_and_a_task_while_its_job_lasts(tmp_path: Path) -> None:
    module = made.MODEL.replace("NAME", "own_net_a") + made.METRICS + made.TASK
    plugin = made.code(made.write(tmp_path, {"plug_a.py": module}), "plug_a")
    own = {**made.TRIAL, "task": {"kind": "mine", "dataset": "digits", "plugin_metrics": ["hits"]}}
    own["backbone"] = {"model": "own_net_a"}
    with pytest.raises(ValueError, match="no such timm model"):
        check_timm_name("own_net_a")
    use([plugin])
    trial = TrialSpec.model_validate(own)
    assert trial.backbone.image_size == 16, "what its default_cfgs say"
    assert [metric.name for metric in trial.metrics] == ["top1", "mean_per_class", "loss", "hits"]
    model = trial.task.build(trial.backbone, None)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 10)
    use([])
    assert "mine" not in TASKS
    assert plugged.MODELS == plugged.METRICS == {}
    with pytest.raises(ValueError, match="does not match any of the expected tags"):
        TrialSpec.model_validate(own)
    use([plugin])
    assert TrialSpec.model_validate(own) == trial


def test_what_runs_is_the_text_that_the_digest_covers(tmp_path: Path) -> None:
    """A file that changes between the digest and the import, or after it, is neither run nor shown."""
    plugin = made.code(made.write(tmp_path, {"plug_b.py": made.METRICS}), "plug_b")
    (tmp_path / "plug_b.py").write_text("raise SystemExit('another text')\n")
    use([plugin])
    _, metric = plugged.METRICS["hits"]
    assert metric.compute(torch.eye(3), torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)
    assert "argmax" in inspect.getsource(metric.compute)
    assert sys.modules["plug_b"].__file__ == str(tmp_path / "plug_b.py")


def test_a_package_imports_its_own_modules(tmp_path: Path) -> None:
    files = {
        "plug_c/__init__.py": "", "plug_c/of.py": "from .deep.values import NAME\nfrom plug_c.deep import values\n",
        "plug_c/deep/__init__.py": "", "plug_c/deep/values.py": "NAME = 3\n",
    }  # fmt: skip
    use([made.code(made.write(tmp_path, files), "plug_c.of")])
    assert sys.modules["plug_c.of"].NAME == sys.modules["plug_c.of"].values.NAME == 3


def test_plugins_of_one_job_may_import_each_other(tmp_path: Path) -> None:
    """In any order, and one that fails leaves none of them behind."""
    made.write(tmp_path, {"plug_1.py": "import plug_2\nX = plug_2.X\n", "plug_2.py": "X = 5\n", "plug_3.py": "1 / 0\n"})
    first, second = (find(Plugin(module=name), [tmp_path], {"plug_2"}) for name in ("plug_1", "plug_2"))
    with pytest.raises(PluginError, match=r"plug_3\.py, line 1: ZeroDivisionError"):
        use([first, second, made.code(tmp_path, "plug_3")])
    assert {"plug_1", "plug_2", "plug_3"}.isdisjoint(sys.modules)
    use([first, second])
    assert sys.modules["plug_1"].X == 5


def test_a_process_serves_one_version_alone(tmp_path: Path) -> None:
    first = made.code(made.write(tmp_path, {"plug_d.py": made.METRICS}), "plug_d")
    second = made.code(made.write(tmp_path, {"plug_d.py": made.METRICS + "\n"}), "plug_d")
    use([first])
    with pytest.raises(
        PluginError, match=r"plugin plug_d: this process has imported plug_d with .*: start a new Python"
    ):
        use([second])
    use([first])


def test_a_package_that_was_imported_before_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(made.write(tmp_path, {"plug_e.py": made.METRICS})))
    import plug_e  # type: ignore[import-not-found]

    with pytest.raises(
        PluginError, match=r"plug_e\.py was imported before as plug_e, .*: load the spec first, or rename"
    ):
        use([made.code(tmp_path, "plug_e")])
    del sys.modules[plug_e.__name__]


def test_other_versions_on_a_node_are_named(tmp_path: Path) -> None:
    found = made.code(made.write(tmp_path, {"plug_f.py": "import torch\n"}), "plug_f")
    versions = {"torch": "0.1"}
    plugin = found.plugin.model_copy(
        update={"versions": versions, "digest": digest_of("plug_f", found.files, versions)}
    )
    with pytest.raises(PluginError, match=r"plug_f\.py imports other versions here .*: torch \S+, not 0\.1: install"):
        use([PluginCode(plugin, found.files, found.folder)])


def test_text_that_does_not_have_its_digest_is_not_run(tmp_path: Path) -> None:
    found = made.code(made.write(tmp_path, {"plug_g.py": "X = 1\n"}), "plug_g")
    with pytest.raises(PluginError, match=r"its files do not have the digest [0-9a-f]{12}: submit the job again"):
        use([PluginCode(found.plugin, {"plug_g.py": "X = 2\n"}, found.folder)])


def test_a_node_may_forbid_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = made.code(made.write(tmp_path, {"plug_h.py": "raise SystemExit\n"}), "plug_h")
    for value in ("off", "OFF", "no", "0"):
        monkeypatch.setenv("ORCHESTRATOR_PLUGINS", value)
        with pytest.raises(PluginError, match="ORCHESTRATOR_PLUGINS is off where this runs"):
            use([plugin])
    assert "plug_h" not in sys.modules


FAULTS: dict[str, tuple[str, str]] = {
    "an exception": ("x = 1\nx / 0\n", r"FILE, line 2: ZeroDivisionError: division by zero: mend it until `python -c"),
    "exit": ("raise SystemExit(3)\n", r"FILE, line 1: SystemExit: 3: mend it"),
    "a name that a package lacks": ("from torch import no_such\n", r"FILE, line 1: ImportError: cannot"),
    "a file of another kind": ("import plug_x.fast\n", r"FILE, line 1: ModuleNotFoundError: .*: only"),
    "tasks in a list": ("TASKS = []\n", r"FILE: TASKS must be a dict from the kind to the class"),
    "no task": ("TASKS = {'mine': int}\n", r"TASKS\['mine'\] must be a class derived from"),
    "a kind of ours": (made.TASK.replace('"mine"', '"pose"'), r"FILE: the task kind pose is one of ours"),
    "another kind": (made.TASK.replace('{"mine"', '{"other"'), r'Mine\.kind must be declared as `kind: Literal\["oth'),
    "letters of a kind": (made.TASK.replace('"mine"', '"My task"'), r"the task kind 'My task' must be small letters"),
    "half a task": (
        made.TASK.replace("classification.task import Classify", "base import Task as Classify"),
        r"Mine lacks build, evaluation_samples, loaders, .*: define what tasks\.base\.Task asks for",
    ),
    "functions alone": ("METRICS = [max]\n", r"FILE: METRICS must be a list of tasks\.metrics\.FromLogits"),
    "a metric of ours": (made.METRICS.replace('"hits", "', '"top1", "'), r"the metric top1 has a name of ours"),
    "a metric of averages": (made.METRICS.replace('"hits", "', '"ema_a", "'), r"ema_a has a name of ours"),
    "letters of a metric": (made.METRICS.replace('"hits", "', '"a b", "'), r"name 'a b' must be small letters, digits"),
    "a metric twice": (made.METRICS + "METRICS *= 2\n", r"METRICS has hits twice: rename one"),
    "no direction": (made.METRICS.replace("higher", "up"), r"hits: better is 'up': it must be one of hig"),
    "no scale": (made.METRICS.replace("100.0", "0"), r"hits: scale is 0: it must be a number above 0"),
    "no function": (made.METRICS.replace(", hits)", ", None)"), r"the metric hits: None is no function: give a fu"),
    "logits alone": (made.METRICS.replace("(logits, labels)", "(logits)"), r"hits: its function does not take thes"),
    "digits": (made.METRICS.replace("100.0, 2", "100.0, 2.5"), r"hits: digits is 2\.5: it must be a whole"),
    "a title of two lines": (made.METRICS.replace('"hits", "h', '"hits", "h\\n'), r"title, unit and comp"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_with_file_and_remedy(fault: str, tmp_path: Path) -> None:
    text, message = FAULTS[fault]
    made.write(tmp_path, {"plug_x/__init__.py": text})
    message = message.replace("FILE", f"{tmp_path}/plug_x/__init__.py".replace(".", r"\."))
    with pytest.raises(PluginError, match=message) as caught:
        use([made.code(tmp_path, "plug_x")])
    assert str(caught.value).startswith("plugin plug_x: ")
    assert "\n" not in str(caught.value)
    assert (TASKS.keys() & {"mine", "other"}, plugged.METRICS) == (set(), {})


def test_a_plugin_that_failed_can_be_mended_in_the_same_process(tmp_path: Path) -> None:
    made.write(tmp_path, {"plug_i.py": "import torch\n1 / 0\n"})
    with pytest.raises(PluginError, match="line 2: ZeroDivisionError"):
        use([made.code(tmp_path, "plug_i")])
    made.write(tmp_path, {"plug_i.py": made.METRICS})
    use([made.code(tmp_path, "plug_i")])
    assert list(plugged.METRICS) == ["hits"]


@pytest.mark.parametrize("text", [made.METRICS, made.TASK, made.MODEL.replace("NAME", "own_net_b")])
def test_two_plugins_cannot_have_one_name(text: str, tmp_path: Path) -> None:
    made.write(tmp_path, {"plug_j.py": text, "plug_k.py": text})
    with pytest.raises(
        PluginError, match=r"plug_k\.py: .*(the metric hits|the task kind mine|plug_j registers the model)"
    ):
        use([made.code(tmp_path, "plug_j"), made.code(tmp_path, "plug_k")])


def test_a_name_of_timm_is_refused_however_it_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import _registry

    monkeypatch.setitem(_registry._model_entrypoints, "resnet18", _registry._model_entrypoints["resnet18"])
    text = "from timm.models import _registry\n_registry._model_entrypoints['resnet18'] = lambda: None\n"
    with pytest.raises(PluginError, match="the model resnet18 is one of timm's or ours: choose another name"):
        use([made.code(made.write(tmp_path, {"plug_l.py": text}), "plug_l")])


def test_output_of_an_import_does_not_mix_with_that_of_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use([made.code(made.write(tmp_path, {"plug_m.py": "print('hello')\n"}), "plug_m")])
    assert capsys.readouterr() == ("", "hello\n")


def test_a_mark_tells_plugins_versions_and_order_apart(tmp_path: Path) -> None:
    a = made.code(made.write(tmp_path, {"plug_n.py": "X = 1\n"}), "plug_n")
    b = made.code(made.write(tmp_path, {"plug_o.py": "X = 1\n"}), "plug_o")
    changed = made.code(made.write(tmp_path, {"plug_n.py": "X = 2\n"}), "plug_n")
    assert len({mark(each) for each in ([], [a], [b], [a, b], [b, a], [changed])}) == 6
    assert mark([]) == ""
    assert PluginCode.from_plain(a.plain()) == a


def test_what_is_imported_counts_under_the_name_of_another_distribution() -> None:
    """A driver without cv2, yaml, PIL notes them as absent; a node that has them must not look the same."""
    assert installed(["no_such_package"]) == {"no_such_package": ABSENT}
    assert installed(["yaml"])["yaml"].startswith("PyYAML ")
