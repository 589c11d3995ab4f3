"""Models that cannot be served are refused before anything is started, with the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.config import EnginesConfig
from runner.engines.checks import check_dtype, check_model
from runner.errors import ConfigError
from tests.fake_engine import write_model


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def refuse(model: Path | str, message: str, config: EnginesConfig | None = None) -> None:
    """Check that a model is refused with these words."""
    with pytest.raises(ConfigError, match=message):
        check_model(str(model), config or EnginesConfig())


def test_a_whole_model_passes(model: Path) -> None:
    """Config, weights, tokenizer, template."""
    check_model(str(model), EnginesConfig())


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    """It cannot be a hub's name either."""
    refuse(tmp_path / "nowhere", "no such folder")


def test_no_name_at_all() -> None:
    """It is not the present folder."""
    refuse("", "names no model; write vllm:PATH")


def test_a_folder_without_config(tmp_path: Path) -> None:
    """Mostly the folder above."""
    refuse(tmp_path, "no config.json")


def test_a_config_that_is_no_json(model: Path) -> None:
    """A download that broke off."""
    (model / "config.json").write_text("{")
    refuse(model, "cannot be read as JSON.*download")


def test_weights_must_be_there(model: Path) -> None:
    """Unless they are made up."""
    (model / "model.safetensors").unlink()
    refuse(model, "no weights")
    check_model(str(model), EnginesConfig(args={"load-format": "dummy"}))
    check_model(str(model), EnginesConfig(args=("--load-format", "dummy")))
    check_model(str(model), EnginesConfig(args=("--load-format=dummy",)))


def test_weights_that_are_pointers(model: Path) -> None:
    """A clone without Git LFS."""
    (model / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refuse(model, "git lfs pull")


def test_a_tokenizer_must_be_there(model: Path) -> None:
    """Or named elsewhere."""
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    refuse(model, "no tokenizer")
    check_model(str(model), EnginesConfig(args={"tokenizer": "/elsewhere"}))


def test_a_chat_template_must_be_there(model: Path, tmp_path: Path) -> None:
    """In the tokenizer's config, in a file of its own, or in the config of the run."""
    (model / "tokenizer_config.json").write_text("{}")
    refuse(model, "no chat template.*engines.chat_template")
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    check_model(str(model), EnginesConfig(chat_template=template))
    (model / "chat_template.jinja").write_text("{{ messages }}")
    check_model(str(model), EnginesConfig())


def test_the_template_of_the_config_is_read(model: Path, tmp_path: Path) -> None:
    """It must exist and be Jinja."""
    refuse(model, "engines.chat_template: cannot read", EnginesConfig(chat_template=tmp_path / "none.jinja"))
    (tmp_path / "plain.jinja").write_text("hello")
    refuse(model, "holds no Jinja", EnginesConfig(chat_template=tmp_path / "plain.jinja"))


def test_heads_are_divided_among_gpus(model: Path) -> None:
    """An engine would say so after it took the GPUs."""
    refuse(model, "8 attention heads", EnginesConfig(tensor_parallel=3))
    check_model(str(model), EnginesConfig(tensor_parallel=4))
    write_model(model, text_config={"num_attention_heads": 6})
    refuse(model, "6 attention heads", EnginesConfig(tensor_parallel=4))


def test_a_hub_name_offline_must_be_in_the_cache(tmp_path: Path) -> None:
    """There it is checked like a folder."""
    config = EnginesConfig(env={"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)})
    refuse("org/name", "HF_HUB_OFFLINE forbids", config)
    snapshot = write_model(tmp_path / "models--org--name" / "snapshots" / "abc")
    check_model("org/name", config)
    (snapshot / "model.safetensors").unlink()
    refuse("org/name", "no weights", config)


def test_bfloat16_needs_a_gpu_that_has_it(model: Path) -> None:
    """By the model's own dtype or the config's."""
    write_model(model, torch_dtype="bfloat16")
    with pytest.raises(ConfigError, match="to half"):
        check_dtype(str(model), EnginesConfig(), 7.5)
    check_dtype(str(model), EnginesConfig(), 9.0)
    check_dtype(str(model), EnginesConfig(), None)
    check_dtype(str(model), EnginesConfig(dtype="half"), 7.5)
    (model / "config.json").write_text(json.dumps({"architectures": []}))
    with pytest.raises(ConfigError, match="bfloat16 needs"):
        check_dtype(str(model), EnginesConfig(dtype="bfloat16"), 7.5)
