import pytest

from dlx.errors import SettingError
from dlx.studies import make_spec, merge, nest, parse_assignment, read_recipe, read_toml, recipe_names


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


def test_an_unknown_setting_is_refused_with_the_nearest_known_one():
    with pytest.raises(SettingError, match=r"unknown setting 'train.epoch': did you mean 'epochs'\?"):
        make_spec({"train": {"epoch": 3}})
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
    with pytest.raises(SettingError, match=r"did you mean 'quick'\? \(known: notes, quick\)"):
        read_recipe("quik")


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text("a = 1\nb = = 2\n")
    with pytest.raises(SettingError, match=r"study.toml: not TOML: .*line 2"):
        read_toml(path)
    with pytest.raises(SettingError, match=r"missing.toml: cannot be read"):
        read_toml(tmp_path / "missing.toml")
