from itertools import permutations

import pytest

from dlx.cli.options import TrainOptions
from dlx.cli.settings_from_options import settings_from
from dlx.settings.binding import bind_parts
from dlx.settings.layers import (
    make_spec,
    merge,
    nest,
    parse_assignment,
    read_recipe,
    read_toml,
    recipe_names,
    with_absolute_paths,
)
from dlx.settings.part import Part
from dlx.settings.spec import Spec
from dlx.system.errors import SettingError, nearest


def test_later_layers_win_key_by_key():
    merged = merge({"train": {"epochs": 3, "patience": 2}, "seed": 1}, {"train": {"epochs": 5}})
    assert merged == {"train": {"epochs": 5, "patience": 2}, "seed": 1}


def test_naming_another_part_drops_the_old_ones_arguments():
    merged = merge({"scheduler": {"name": "step", "gamma": 0.5}}, {"scheduler": {"name": "exponential"}})
    assert merged == {"scheduler": {"name": "exponential"}}


def test_a_bare_model_name_keeps_the_recipes_sizes_and_a_colon_drops_them():
    base = {"model": {"name": "unet2", "width": 16}}
    assert merge(base, {"model": "unet"}) == {"model": {"name": "unet", "width": 16}}
    assert make_spec(merge(base, {"model": "unet:"})).model.args == {}
    assert make_spec(merge(base, {"model": "unet:width=4"})).model.args == {"width": 4}


def test_set_changes_one_argument_of_a_part():
    base = {"model": "unet2:width=16,levels=3", "data": {"source": "phantom:subjects=10,size=64"}}
    merged = merge(base, nest([("model.width", 8), ("data.source.subjects", 4)]))
    assert merged["model"] == {"name": "unet2", "width": 8, "levels": 3}
    assert merged["data"]["source"] == {"name": "phantom", "subjects": 4, "size": 64}


def test_the_optimizers_rate_stays_when_its_name_changes():
    spec = make_spec(merge({"optimizer": {"name": "adamw", "lr": 0.5}}, nest([("optimizer.name", "sgd:momentum=0.8")])))
    assert spec.optimizer.lr == 0.5
    assert spec.optimizer.name.args == {"momentum": 0.8}


def test_a_path_over_the_phantom_replaces_it_whole():
    spec = make_spec(merge({"data": {"source": "phantom:subjects=3"}}, {"data": {"source": "some/folder"}}))
    assert spec.data.source.args == {"path": "some/folder"}


def test_the_phantom_named_alone_is_the_recipes():
    base = {"data": {"source": "phantom:subjects=3"}}
    alone = {"data": {"source": "phantom"}}
    assert make_spec(merge(base, alone)).data.source.args == {"subjects": 3}
    assert make_spec(merge(base, {"data": {"source": "phantom:size=24"}})).data.source.args == {"size": 24}
    assert make_spec(merge(base, {"data": {"source": "some/folder"}}, alone)).data.source.args == {}


def test_one_argument_of_a_folder_is_set_beside_its_path():
    base = {"data": {"source": "phantom:subjects=3"}}
    spec = make_spec(merge(base, {"data": {"source": "some/folder"}}, nest([("data.source.layout", "iseg")])))
    assert spec.data.source == Part(name="folder", args={"path": "some/folder", "layout": "iseg"})
    one_layer = make_spec(merge(base, nest([("data.source.layout", "iseg"), ("data.source", "some/folder")])))
    assert one_layer.data.source == spec.data.source
    dumped = {"data": {"source": {"name": "folder", "args": {"path": "some/folder"}}}}
    assert make_spec(merge(dumped, nest([("data.source.layout", "iseg")]))).data.source == spec.data.source


def test_one_layer_does_not_depend_on_the_order_of_its_keys():
    base = {"model": "unet2:width=16,levels=3"}
    given = [("model.width", 32), ("model.name", "unet"), ("model.norm", "group"), ("train.epochs", 3)]
    models = [merge(base, nest(order))["model"] for order in permutations(given)]
    assert models == [{"name": "unet", "width": 32, "norm": "group"}] * len(models)
    for order in permutations([("model.width", 8), ("model", "unet:levels=2")]):
        assert merge(base, nest(order))["model"] == {"name": "unet", "width": 8, "levels": 2}


def test_a_table_of_a_models_name_alone_keeps_the_recipes_sizes_as_a_bare_name_does():
    base = {"model": {"name": "unet2", "width": 16}}
    assert merge(base, {"model": {"name": "unet"}}) == merge(base, {"model": "unet"})
    assert merge(base, nest([("model.name", "unet")])) == merge(base, {"model": "unet"})
    assert merge(base, {"model": {"name": "unet", "levels": 2}}) == {"model": {"name": "unet", "levels": 2}}


WAYS = [{"val": ["a"]}, {"fold": 1}, {"fold": 1, "folds": 3}, {"val_fraction": 0.5}, {"file": "splits.json"}]


@pytest.mark.parametrize("new", WAYS)
@pytest.mark.parametrize("old", WAYS)
def test_a_way_of_splitting_replaces_that_of_every_layer_before(old, new):
    merged = merge({"split": {"seed": 4, **old}}, {"train": {"epochs": 2}}, {"split": new})["split"]
    if new == {"fold": 1} and "file" in old:
        assert merged == {"seed": 4, "file": "splits.json", "fold": 1}
    elif new == {"fold": 1} and "folds" in old:
        assert merged == {"seed": 4, "fold": 1, "folds": 3}
    else:
        assert merged == {"seed": 4, **new}
    make_spec({"split": merged})


def test_every_layer_of_a_command_line_replaces_the_way_of_splitting(tmp_path):
    config = tmp_path / "my.toml"
    config.write_text("split.val_fraction = 0.3\n")

    def split_of(**given):
        return make_spec(settings_from(TrainOptions(recipe="notes", **given))).split

    assert (split_of(config=config).val, split_of(config=config).val_fraction) == (None, 0.3)
    assert split_of(config=config, fold=2).model_dump(exclude_none=True) == {"fold": 2, "seed": 0}
    assert split_of(config=config, fold=2, set_=["split.val=a"]).model_dump(exclude_none=True) == {
        "val": ("a",),
        "seed": 0,
    }


def test_folds_without_a_fold_are_refused_with_what_to_add():
    with pytest.raises(SettingError, match=r"split: folds is given, but not fold.*0 to 9.*add it"):
        make_spec({"split": {"folds": 10}})
    with pytest.raises(SettingError, match="a file, which has its own"):
        make_spec({"split": {"folds": 10, "fold": 0, "file": "splits.json"}})
    assert make_spec(make_spec({}).model_dump(mode="json")).split.fold is None


@pytest.mark.parametrize(
    ("below", "key"), [({"split": 3}, "split"), ({"optimizer": "sgd"}, "optimizer"), ({"loss": ["ce"]}, "loss")]
)
def test_a_table_over_what_is_none_is_refused_with_its_key(below, key):
    with pytest.raises(SettingError, match=f"^{key}: given as a table and as"):
        merge(below, {key: {"fold": 0}})
    with pytest.raises(SettingError, match=f"^{key}: given as a table and as"):
        nest([(key, below[key]), (f"{key}.fold", 0)])


def test_all_paths_of_a_spec_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    given = {
        "data": {"source": "~/data"},
        "split": {"file": "splits.json", "fold": 0, "groups": "a/groups.json"},
        "train": {"init_from": "~/last.safetensors"},
    }
    spec = with_absolute_paths(make_spec(given))
    assert spec.data.source.args == {"path": "/home/someone/data"}
    assert (spec.split.file, spec.split.groups) == (str(tmp_path / "splits.json"), str(tmp_path / "a/groups.json"))
    assert spec.train.init_from == "/home/someone/last.safetensors"
    assert with_absolute_paths(spec) == spec
    assert with_absolute_paths(Spec()) == Spec()


@pytest.mark.parametrize("name", ["normaliser", "NORMALIZE", "Normalize"])
def test_a_name_is_suggested_whatever_its_case(name):
    assert nearest(name, ["normalize", "spacing_mm"]).startswith("did you mean 'normalize'?")


@pytest.mark.parametrize("key", ["data.spacing_mm", "data.normalize", "model.norm", "model.down_norm"])
def test_none_can_be_typed_wherever_it_is_a_value_and_is_read_as_in_a_study_file(key):
    network = ("model.name", "unet2")
    typed, written = (nest([network, one]) for one in (parse_assignment(f"{key}=none"), (key, "none")))
    assert bind_parts(make_spec(typed)) == bind_parts(make_spec(written))


def test_an_unknown_setting_is_refused_with_the_nearest_known_one():
    with pytest.raises(SettingError, match=r"unknown setting 'train.epoch': did you mean 'train.epochs'\?"):
        make_spec({"train": {"epoch": 3}})
    with pytest.raises(SettingError, match=r"unknown setting 'optimizer.lrr': did you mean 'optimizer.lr'\?"):
        make_spec({"optimizer": {"lrr": 1}})
    with pytest.raises(SettingError, match=r"unknown setting 'dropuot': did you mean 'dropout'\?"):
        make_spec({"dropuot": {}})


def test_a_wrong_value_names_its_key():
    with pytest.raises(SettingError, match=r"dropout.p: .*less than 1.*1\.5"):
        make_spec({"dropout": {"p": 1.5}})


@pytest.mark.parametrize("text", ["epochs", "=3", "a..b=1", "a b=1"])
def test_an_assignment_without_key_and_value_is_refused(text):
    with pytest.raises(SettingError, match="expected key=value"):
        parse_assignment(text)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_valid_spec(name):
    make_spec(read_recipe(name))


def test_the_notes_recipe_is_the_notes_study():
    spec = make_spec(read_recipe("notes"))
    assert (spec.model.args["width"], spec.train.steps_per_epoch, spec.train.epochs) == (64, 150, 100)
    assert (spec.optimizer.name.name, spec.optimizer.lr, spec.optimizer.weight_decay) == ("adam", 2e-4, 5e-4)
    assert [term.name for term in spec.loss] == ["lovasz", "focal"]
    assert spec.loss[1].args == {"gamma": 2, "class_weights": [0.1, 0.4, 0.2, 0.3], "double_softmax": True}
    assert (spec.batch.kind, spec.batch.size, spec.batch.patch_size_px) == ("block", 64, (64, 64))
    assert spec.split.val == ("subject-1",)
    assert spec.data.crop


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match=r"did you mean 'quick'\? \(known: notes, quick, strong\)"):
        read_recipe("quik")


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("a = 1\nb = = 2\n")
    with pytest.raises(SettingError, match=r"study.toml: not TOML: .*line 2"):
        read_toml(path)
    with pytest.raises(SettingError, match=r"missing.toml: cannot be read"):
        read_toml(tmp_path / "missing.toml")


def test_a_network_of_another_kind_starts_from_its_own_sizes():
    recipe = read_recipe("quick")
    sizes = {key: value for key, value in recipe["model"].items() if key != "name"}
    assert merge(recipe, {"model": "unet"})["model"] == {"name": "unet", **sizes}
    assert merge(recipe, {"model": "unet-resnet34"})["model"] == {"name": "unet-resnet34"}
    assert merge(recipe, {"model": "unet-resnet34"}, {"model": "unet2"})["model"] == {"name": "unet2"}
    small = {"model": "unet-resnet34:width=16"}
    assert merge(small, {"model": "unet-resnet18"})["model"] == {"name": "unet-resnet18", "width": 16}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train.epochs = 1e9999", "train.epochs: inf is not finite"),
        ("batch.patch_size_px = [16, nan]", "batch.patch_size_px: nan is not finite"),
        (f"optimizer.lr = 1{'0' * 400}", "optimizer.lr: 10{76}... is too large"),
        (f"train.epochs = 1{'0' * 5000}", "not TOML: a whole number of thousands of digits"),
    ],
)
def test_numbers_that_no_setting_can_take_are_refused(tmp_path, text, words):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(SettingError, match=words) as refusal:
        read_toml(path)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("key", ["train.epochs", "batch.size", "train.steps_per_epoch", "optimizer.lr", "split.seed"])
@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf")])
def test_huge_numbers_from_options_are_refused(key, value):
    with pytest.raises(SettingError, match=key) as refusal:
        make_spec(nest([(key, value)]))
    assert len(str(refusal.value)) < 300


def test_counts_above_a_million_are_refused():
    with pytest.raises(SettingError, match="expected 1,000,000 or less"):
        make_spec({"train": {"epochs": 2**62}})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 3}, "unknown setting 'epochs': did you mean 'train.epochs'?"),
        ({"trian": {"epochs": 3}}, "unknown setting 'trian': did you mean 'train'?"),
        ({"dropout": 0.3}, "dropout: a section, not a setting (got 0.3); set one of dropout.p, dropout.kind"),
    ],
)
def test_a_setting_in_the_wrong_place_is_refused_with_its_right_place(settings, words):
    with pytest.raises(SettingError) as refusal:
        make_spec(settings)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("train.epochs", 0, "train.epochs: expected 1 or more (got 0)"),
        ("optimizer.lr", -1.0, "optimizer.lr: expected more than 0 (got -1.0)"),
        ("loss", [3], "loss.0: expected a name or a table (got 3)"),
        ("train.epochs", "ten", "train.epochs: expected a whole number (got 'ten')"),
        ("data.crop", "maybe", "data.crop: expected true or false (got 'maybe')"),
        ("compute.precision", "fp16", "compute.precision: expected 'auto', 'float32' or 'bf16' (got 'fp16')"),
        ("compute.device", "gpu", "compute.device: expected auto, cpu, mps, cuda or one of several GPUs"),
    ],
)
def test_a_wrong_value_is_refused_with_what_was_expected(key, value, words):
    with pytest.raises(SettingError) as refusal:
        make_spec(nest([(key, value)]))
    assert words in str(refusal.value)


def test_of_very_many_names_the_nearest_are_listed():
    known = [f"Layer{number}" for number in range(100)] + ["Linear"]
    assert nearest("Liner", known).startswith("did you mean 'Linear'? (known: Linear, ")
    assert len(nearest("Liner", known)) < 120
    assert nearest("qqq", known) == "none of 101 names is similar"
